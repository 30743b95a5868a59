"""What whoever runs the app may choose."""

from pydantic import Field

from heedful.config import Config


class WebConfig(Config):
    """The app's settings; what a project's leads may change themselves stands in the store."""

    title: str = "heedful"
    session_days: float = Field(default=14, gt=0)
    secure: bool = False  # cookies go over HTTPS only; set it wherever the app is reached by HTTPS
    max_body: int = Field(default=2 * 2**20, ge=1024)  # bytes of a request
    models: dict[str, str] = Field(default_factory=dict)  # name → address of a model server (heedful serve)
    model_seconds: float = Field(default=120, gt=0)  # in which a model has to give its whole answer
    runs: str = ""  # the run's folder, whose stages the dashboard shows
