"""`python -m heedful`, for where the console script is not on the path."""

from heedful.cli import app

if __name__ == "__main__":
    app()
