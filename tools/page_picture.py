"""Take a picture of a page, or of a captured terminal, for the documents.

`python -m tools.page_picture shards/demo/report.html docs/images/report.png --height 1200`. A file
that ends in .txt is shown as a terminal. tools.terminal_capture's HOME stands for `--folder`.
"""

import argparse
import html
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tools.terminal_capture import HOME

COLOURS = 128
TERMINAL = """<meta charset="utf-8"><body style="margin:0;background:#14171b;color:#e6e8eb">
<pre style="margin:0;padding:1rem 1.2rem;display:inline-block;font:14px/1.45 'DejaVu Sans Mono',
monospace">{}</pre>"""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    made = argparse.ArgumentParser("python -m tools.page_picture", description=__doc__)
    made.add_argument("page", type=Path, help="a page, or a terminal's text")
    made.add_argument("out", type=Path, help="the picture: PNG")
    made.add_argument("--width", type=int, default=1100, help="of the window")
    made.add_argument("--height", type=int, default=900, help="how much of a page is shown")
    made.add_argument("--at", default="", help="heading of the section at which it is taken")
    made.add_argument("--lines", type=int, help="how many of a terminal are shown; default: all")
    made.add_argument("--folder", default=str(Path.cwd()), help="where the page was made")
    args = made.parse_args(list(argv))
    told = args.page.read_text(encoding="utf-8").replace(args.folder, HOME)
    is_terminal = args.page.suffix == ".txt"
    if is_terminal:
        told = TERMINAL.format(html.escape("\n".join(told.splitlines()[: args.lines])))
    part = "pre" if is_terminal else None
    shot = picture(told, args.width, args.height, part, args.at)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    few = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS)
    few.save(args.out, optimize=True)
    return 0


def picture(page: str, width: int, height: int, part: str | None, at: str = "") -> bytes:
    """Return a picture of a page in a window of this size, or of a whole element of it: PNG.

    The window begins at the section with the heading `at`, if there is one.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": width, "height": height})
        shown = Path(folder) / "page.html"
        shown.write_text(page, encoding="utf-8")
        window.goto(shown.as_uri())
        if at:
            section = window.locator("section", has=window.locator("h2", has_text=at))
            section.evaluate("each => each.scrollIntoView()")
        taken = window.locator(part).screenshot() if part else window.screenshot()
        browser.close()
    return taken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
