"""Somebody at a real browser: with the keyboard alone, with a pointer, without JavaScript, or on a phone."""

from collections.abc import Callable
from typing import Literal

from playwright.sync_api import Page

from heedful.web.words import translations

Way = Literal["keyboard", "pointer", "no JavaScript", "phone"]
OPTIONS: dict[Way, dict] = {
    "keyboard": {},
    "pointer": {},
    "no JavaScript": {"java_script_enabled": False},
    "phone": {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True},
}
LOCALES = {"en": "en", "zh-CN": "zh_Hans"}  # of the browser → of the app
FAR = 200  # presses of Tab until something is called out of reach
NOT_REACHED = "{} cannot be reached by Tab"
MATCHES = "selector => document.activeElement.matches(selector)"


class Hands:
    """What they do. Elements are named by selectors; by keyboard they are reached by Tab, never by a script."""

    def __init__(self, page: Page, way: Way, locale: str) -> None:
        self.page, self.way, self.locale = page, way, locale

    @property
    def typing(self) -> bool:
        return self.way == "keyboard"

    def say(self, message: str) -> str:
        return translations(LOCALES[self.locale]).gettext(message)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def reach(self, selector: str) -> None:
        """Go on by Tab until the element has the focus."""
        for _ in range(FAR):
            if self.page.evaluate(MATCHES, selector):
                return
            self.press("Tab")
        raise AssertionError(NOT_REACHED.format(selector))

    def touch(self, selector: str) -> None:
        """Point at it, or tap it."""
        found = self.page.locator(selector).first
        found.tap() if self.way == "phone" else found.click()

    def go(self, selector: str) -> None:
        """Press a button or follow a link."""
        if self.typing:
            self.reach(selector)
            self.press("Enter")
        else:
            self.touch(selector)

    def go_to_page(self, selector: str) -> None:
        """As `go`, until the next page is there."""
        with self.page.expect_navigation():
            self.go(selector)
        assert self.way != "phone" or self.fits(), f"{self.page.url} is wider than the phone"

    def tick(self, name: str, value: str = "yes") -> None:
        """Choose a radio button or tick a box."""
        one = f'input[name="{name}"][value="{value}"]'
        if not self.typing:
            shut = f".boxes.shut:has({one}) button"
            if self.page.locator(shut).count():
                self.touch(shut)
            self.touch(f"label:has({one})")
            return
        self.reach(f'input[name="{name}"]')
        for _ in range(FAR):
            if self.page.evaluate(MATCHES, one):
                break
            self.press("ArrowRight")
        if not self.page.is_checked(one):
            self.press("Space")

    def write(self, selector: str, text: str) -> None:
        """Go into a field and type; what stands there already stays before it."""
        if self.typing:
            self.reach(selector)
        else:
            self.touch(selector)
        self.press("Control+End")
        self.page.keyboard.type(text)

    def choose(self, selector: str, value: str) -> None:
        """Choose from a list. No test can open the browser's own list, so without keys its choice is set."""
        if not self.typing:
            self.page.select_option(selector, value)
            return
        self.reach(selector)
        for _ in range(FAR):
            if self.page.input_value(selector) == value:
                return
            self.press("ArrowDown")
        raise AssertionError(f"{value} is not in the list {selector}")

    def submit(self) -> None:
        """Send the item's form, and see the next page."""
        if self.typing:
            with self.page.expect_navigation():
                self.press("Control+Enter")
        else:
            self.go_to_page("#submit")

    def fits(self) -> bool:
        return self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


Do = Callable[[Hands], None]
