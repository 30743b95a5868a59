"""Hostile texts, numbers and sizes in every field, address and body: nothing is an error of ours, nothing gets in."""

import re
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest
from sqlalchemy import func, select

from heedful.store import accounts
from heedful.store.database import Store
from heedful.store.schema import metadata, rankings
from heedful.web.app import create_app
from heedful.web.config import WebConfig
from heedful.web.markdown import html_of
from heedful.web.visit import HERE
from web.conftest import Client
from web.test_rank import marks
from web.test_roles import all_routes

HOSTILE = (
    "' OR '1'='1' --",
    '"; DROP TABLE rankings; --',
    "%_%\\",
    "9" * 5000,
    "-1",
    "1e999",
    "nan",
    "٣",
    "../../../../etc/passwd",
    "<script>alert(1)</script>{{7*7}}${7*7}%s%(x)s{0}",
    "\u202e\ufeff\u2028\U0010ffff",
)
# What leads one step further than a field that is missing.
SANE = {
    **{"task": "ranking", "purpose": "train", "round": "0", "group": "train", "pool": "", "overlap": "1", "do": "save"},
    **{"prompt": "p0", "ranking": "", "item": "p0", "number": "1", "rate": "5", "role": "labeler", "days": "7"},
    **{"account": "cy", "text": "text", "version": "0", "base": "0", "work": "ranking/train/0", "reason": "other"},
}
LEFT_OUT = {"/logout", "/account/logout", "/account/password", "/login", "/lead/people/close", "/join/{secret}"}


def fields_of_routes() -> list[str]:
    """Every field that the app's code reads of a form or an address."""
    pattern = re.compile(r'(?:text_of\(\w+, |getlist\(|query_params\.get\(|asked\.get\()"([\w-]+)"')
    found = {name for file in HERE.rglob("*.py") for name in pattern.findall(Path(file).read_text())}
    assert len(found) > 30
    return sorted(found | SANE.keys() | {"rank-A", "overall-A", "shown", "choice", "seconds", "success", "toxicity-A"})


FIELDS = fields_of_routes()


def count_rows(store: Store) -> dict[str, int]:
    with store.read() as connection:
        return {
            name: connection.execute(select(func.count()).select_from(metadata.tables[name])).scalar()
            for name in ("rankings", "ratings", "demonstrations", "prompts", "responses", "accounts")
        }


def addresses(store: Store, key: str, what: str) -> Iterator[tuple[str, str]]:
    for route in all_routes(create_app(store).routes):
        for method in sorted(route.methods - {"HEAD", "OPTIONS"}):
            if route.path not in LEFT_OUT:
                path = route.path if what == "field" else re.sub(r"\{\w+(:\w+)?\}", what, route.path)
                yield method, re.sub(r"\{\w+(:\w+)?\}", "ranking", path.replace("{key}", key))


@pytest.mark.parametrize("turn", [0, 5])
def test_every_field_of_every_page_takes_anything(client: Callable, people: Store, turn: int) -> None:
    admin = client("admin")
    key = admin.next().rsplit("/", 1)[1]
    before = count_rows(people)
    for method, path in addresses(people, key, "field"):
        if path.startswith("/api"):
            continue
        everything = dict(zip(FIELDS, cycle(HOSTILE[turn:] + HOSTILE[:turn]), strict=False))
        for fields in (everything, everything | SANE, dict.fromkeys(FIELDS, "1") | SANE | {"prompt": HOSTILE[turn]}):
            if method == "GET":
                answer = admin.get(path, params={name: text[:500] for name, text in fields.items()})
            elif method == "PUT":
                answer = admin.http.put(path, json=fields, headers={"x-csrf-token": admin.csrf})
            else:
                answer = admin.post(path, **fields)
            assert answer.status_code < 500 or answer.status_code == 502, (method, path, answer.text[-500:])
            assert "<script>alert" not in answer.text, (method, path)
    after = count_rows(people)
    assert {name for name in after if after[name] < before[name]} == set()
    assert after["accounts"] == before["accounts"]


@pytest.mark.parametrize(
    "value", ["%27%20OR%201=1--", "%25", "_", "..%2f..%2fetc%2fpasswd", "9" * 500, "%ed%a0%80", "%F0"]
)
def test_every_address_takes_anything(client: Callable, people: Store, value: str) -> None:
    name = "admin"
    visitor = client(name)
    token = accounts.add_token(people, name, "mine")
    for method, path in addresses(people, value, value):
        headers = {"authorization": f"Bearer {token}", "x-csrf-token": visitor.csrf}
        sent = {"data": {}} if method == "POST" else {}
        answer = visitor.http.request(method, path, headers=headers, follow_redirects=False, **sent)
        assert answer.status_code < 500, (method, path, answer.text[-500:])
        if value in path and method == "GET":
            assert answer.status_code in (303, 400, 403, 404, 422), (method, path)


def test_wildcards_find_nothing(client: Callable, people: Store) -> None:
    """A name is what it is: neither % nor _ stands for another."""
    for name in ("c_", "%", "_y"):
        accounts.add_account(people, name, "a password of theirs")
    nobody = client()
    assert nobody.post("/login", name="%", password="a long password").status_code == 401
    cy, other = client("cy"), client()
    cy.post(cy.next(), **marks("123", "567"))
    page = other.post("/login", name="c_", password="a password of theirs")
    assert page.status_code == 200 and "0 by you" in page.text and "1 by you" not in page.text


@pytest.mark.parametrize("place", ["/item/%00", "/join/a%00b", "/reset/%00", "/lead/screening/%00", "/?notice=%00"])
def test_no_address_holds_a_nul(client: Callable, place: str) -> None:
    answer = client("admin").get(place)
    assert answer.status_code == 400 and "NUL" in answer.text


@pytest.mark.parametrize(
    "charset", ["raw_unicode_escape", "unicode_escape", "utf-16", "utf-7", "rot13", "zlib", "undefined"]
)
def test_a_form_in_an_odd_charset_is_an_ordinary_bad_form(client: Callable, charset: str) -> None:
    cy = client("cy")
    item = cy.next()
    for name, text in (("csrf", cy.csrf), ("overall-A", "\\ud800"), ("\\udfff", "\\x00")):
        body = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n--x--\r\n'
        kind = f"multipart/form-data; boundary=x; charset={charset}"
        answer = cy.http.post(item, content=body, headers={"content-type": kind, "x-csrf-token": cy.csrf})
        assert answer.status_code in (400, 403, 422)
    assert cy.get(item).status_code == 200


def test_halves_of_characters_in_a_draft_do_not_break_its_page(client: Callable) -> None:
    cy = client("cy")
    item = cy.next()
    headers = {"x-csrf-token": cy.csrf, "content-type": "application/json"}
    body = b'{"seconds": "\\ud800\\u0000", "\\udfff\\u0000": "x", "overall-A": "3"}'
    assert cy.http.put(f"{item}/draft", content=body, headers=headers).status_code == 200
    page = cy.get(item)
    assert page.status_code == 200 and page.text.count(" checked>") == 2  # the mark, and the first reason to skip


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 50_000, b'{"a": 1}', b"[]", b"null", b'{"a": {"b": "c"}}', b"\xff"]
)
def test_json_that_is_no_draft_is_refused(client: Callable, body: bytes) -> None:
    cy = client("cy")
    headers = {"x-csrf-token": cy.csrf, "content-type": "application/json"}
    assert cy.http.put(f"{cy.next()}/draft", content=body, headers=headers).status_code in (400, 422)


def test_fifty_megabytes_are_refused_with_a_length_and_without(client: Callable, people: Store) -> None:
    cy = client("cy")
    item = cy.next()
    piece = b"a=" + b"x" * 2**20
    read = []

    def body() -> Iterator[bytes]:
        for n in range(50):
            read.append(n)
            yield piece

    for path, method in ((item, "POST"), (f"{item}/draft", "PUT"), ("/login", "POST"), ("/api/v1/next", "POST")):
        headers = {"x-csrf-token": cy.csrf, "content-type": "application/x-www-form-urlencoded"}
        assert cy.http.request(method, path, content=b"x" * (50 * 2**20), headers=headers).status_code == 413
        answer = cy.http.request(method, path, content=body(), headers=headers)
        if path.startswith("/api/"):
            assert answer.status_code in (401, 413)  # without a token no body is read
        else:
            assert (answer.status_code, answer.text) == (413, "more than 2,097,152 bytes\n"), path
            assert answer.headers["content-security-policy"]
    for length in ("²", "-1", "1e3", "9" * 5000, ""):
        answer = cy.http.post("/login", content=b"", headers={"content-length": length.encode("latin-1")})
        assert answer.status_code == 413
    assert cy.get(item).status_code == 200


def test_the_limit_is_the_operators(people: Store) -> None:
    cy = Client(people, "cy", WebConfig(max_body=4096))
    assert cy.post("/next", work="x" * 5000).status_code == 413
    assert cy.post("/next", work="x" * 100).status_code == 200


def test_thousands_of_fields_and_files_where_text_is_wanted(client: Callable, people: Store) -> None:
    cy = client("cy")
    item = cy.next()
    form = "&".join(f"a{n}=1" for n in range(50_000))
    headers = {"content-type": "application/x-www-form-urlencoded", "x-csrf-token": cy.csrf}
    assert cy.http.post(item, content=form, headers=headers).status_code in (400, 403)
    files = {name: (f"{name}.txt", b"3") for name in ("rank-A", "overall-A")}
    assert cy.http.post(item, files=files, data={"csrf": cy.csrf}).status_code == 422
    many = [("rank-A", (f"{n}.txt", b"3")) for n in range(50)]
    assert cy.http.post(item, files=many, data={"csrf": cy.csrf}).status_code in (400, 403)
    assert cy.http.post(item, files={"csrf": ("csrf", cy.csrf.encode())}).status_code == 403


def test_numbers_beyond_all_bounds_and_fields_twice(client: Callable, people: Store) -> None:
    cy = client("cy")
    item = cy.next()
    for bad in ("99999999999999", "9" * 5000, "0", "-1", "1.0", "１", "²", "1 ", "0x1", "True"):
        assert cy.post(item, **marks("123", "444") | {"rank-A": bad}).status_code == 422, bad
        assert cy.post(item, **marks("123", "444") | {"overall-A": bad}).status_code == 422, bad
    page = cy.http.post(item, data=marks("123", "444") | {"rank-A": ["3", "1"], "csrf": ["wrong", cy.csrf]})
    assert page.status_code == 200  # the last one counts, as the page's own fields come after nobody's
    with people.read() as connection:
        assert connection.execute(select(func.count()).where(rankings.c.labeler == "cy")).scalar() == 1
    for bad in ("inf", "nan", "-5", "1e308", "9" * 400):
        assert cy.post(item, **marks("123", "444"), seconds=bad).status_code == 200


def test_markdown_that_costs_its_parser_dear_is_shown_as_it_is() -> None:
    for text in ("[" * 60_000, "[a](" * 6_000, "x" * 60_000 + "<script>", "![" * 6_000):
        made = html_of(text)
        assert made.startswith('<div class="plain-text">') and "<script" not in made
    assert html_of("*a* [b](https://c.example)").startswith("<p><em>a</em>")
    assert html_of("> " * 20_000) and html_of("- " * 20_000) and html_of("  - a\n" * 3000)  # nested deep


@pytest.mark.parametrize(
    "text",
    [
        *("[a](javascript:alert(1))", "[a](JaVaScRiPt&colon;alert(1))", "[a](java\nscript:alert(1))", "<javascript:x>"),
        *("[a](data:text/html;base64,PHNjcmlwdD4=)", "[a](vbscript:x)", "![a](https://evil.example/x.png)"),
        *("<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<style>*{background:url(//evil.example)}</style>"),
        *(
            '[a](https://x.example "\\" onmouseover=alert(1)")',
            "<iframe src=//evil.example>",
            "<a href=//evil.example>b",
        ),
        *('```"><script>alert(1)</script>\nx\n```', "[a]: javascript:alert(1)\n\n[a]", "<base href=//evil.example>"),
        *(
            "[a](file:///etc/passwd)",
            "&#60;script&#62;",
            "<math><mi xlink:href='javascript:x'>",
            "[a](\x01javascript:x)",
        ),
    ],
)
def test_markdown_runs_nothing_and_fetches_nothing(text: str) -> None:
    made = html_of(text)
    tags = re.findall(r"<[^>]*>", made)
    assert all(re.fullmatch(r"</?(p|em|strong|code|pre|br|a|ul|li)( [^>]*)?/?>", tag.strip()) for tag in tags), made
    for tag in tags:
        bare = re.sub(r' title="[^"<>]*"', "", tag)
        assert re.fullmatch(r'</?\w+ ?/?>|<a( href="[^"<>]*")? rel="noopener noreferrer nofollow">', bare), tag
        assert not re.search(r'\s(on\w+|style|src)=|href="(?!https?:|mailto:|[\w/.#?-]*")', bare), tag
