"""Chromium, as tests drive it."""

import contextlib
import shutil
import time
from collections.abc import Iterator

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@contextlib.contextmanager
def browser() -> Iterator:
    """Give a browser that fetches nothing by itself and plays sounds unasked."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--autoplay-policy=no-user-gesture-required",
            ],
        )
        yield started
        started.close()


@contextlib.contextmanager
def opened(browser, address: str, look: str = "light", width: int = 1280) -> Iterator:
    """Give a page, on whose console nothing may be said in the block."""
    problems: list[str] = []
    page = browser.new_page(color_scheme=look, viewport={"width": width, "height": 900})
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url[:80]))
    page.goto(address)
    yield page
    page.close()
    assert not problems, problems


def wait_until(page, expression: str, timeout_s: float = 60) -> None:
    """Wait until JavaScript is true; the page's policy forbids that it waits for that itself."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"still not so: {expression}"
        page.wait_for_timeout(50)
