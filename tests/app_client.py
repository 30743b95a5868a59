"""A labeler's browser without JavaScript, over HTTP: for load, kills and whole runs of the app."""

import html
import re
import time
from collections.abc import Callable

import httpx

FIELD = re.compile(r'name="(overall-([A-I])|rank-([A-I]))"')
CSRF = re.compile(r'name="csrf" value="([^"]+)"')
GUIDELINE = re.compile(r'name="guideline" value="([^"]+)"')


class Labeler:
    """Somebody who logs in and ranks. `clock` gets the seconds of every request that was answered."""

    def __init__(self, address: str, name: str, password: str, clock: Callable[[str, float], None] | None = None):
        self.http = httpx.Client(base_url=address, follow_redirects=True, timeout=30)
        self.name, self.password = name, password
        self.clock = clock or (lambda what, seconds: None)
        self.csrf = ""

    def get(self, path: str) -> httpx.Response:
        return self.timed("get", lambda: self.http.get(path))

    def post(self, path: str, fields: dict[str, str]) -> httpx.Response:
        return self.timed("post", lambda: self.http.post(path, data={"csrf": self.csrf} | fields))

    def timed(self, what: str, ask: Callable[[], httpx.Response]) -> httpx.Response:
        began = time.perf_counter()
        answer = ask()
        self.clock(what, time.perf_counter() - began)
        return answer

    def log_in(self) -> httpx.Response:
        page = self.post("/login", {"name": self.name, "password": self.password, "next": "/"})
        assert page.status_code == 200, page.text[:500]
        self.csrf = html.unescape(CSRF.search(page.text)[1])
        return page

    def next(self) -> httpx.Response:
        """The page of the next item, or the home page where nothing is left."""
        return self.post("/next", {"work": ""})

    def answer(self, page: httpx.Response, places: Callable[[str], int] = lambda letter: ord(letter) - 64):
        """The ranking page's form as this labeler fills it in: its address and fields."""
        fields = {"guideline": html.unescape(GUIDELINE.search(page.text)[1]), "seconds": "5"}
        for name, marked, placed in FIELD.findall(page.text):
            fields[name] = "4" if marked else str(places(placed))
        return page.url.path, fields
