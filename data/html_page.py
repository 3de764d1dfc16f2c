"""HTML pages for any browser: one stylesheet, no scripts, nothing to fetch; text is escaped.

A page is put together from `Html`, which is markup already. Any other string is taken as text and
escaped, so that what a transcript or a configuration says cannot become markup.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

_STYLE = """
body { font: 14px sans-serif; margin: 2em; max-width: 90em }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: 2px 8px; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd }
.number { text-align: right; font-variant-numeric: tabular-nums }
.bar { width: 24em; height: 0.9em; margin: 0.15em 0 }
.bar div { background: #4878a8; height: 100% }
.row { display: flex; flex-wrap: wrap; gap: 1em }
figure { margin: 0 }
figure img { max-width: 100% }
figcaption { font-size: 12px; color: #555 }
pre { margin: 0; white-space: pre-wrap }
"""
# an empty icon: browsers ask for /favicon.ico otherwise, which fails for a file
_HEAD = '<meta charset="utf-8"><link rel="icon" href="data:,">'


class Html(str):
    """Markup: it becomes part of a page as it is."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return a value as markup: `Html` as it is, anything else as escaped text."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Return an element such as `<h2>Lengths</h2>`.

    Args:
        tag: name of the element.
        *content: texts and markup inside it.
        **attributes: its attributes; `class_` is written as `class`.
    """
    named = "".join(
        f' {name.rstrip("_")}="{html.escape(str(value))}"' for name, value in attributes.items()
    )
    inner = "".join(text(part) for part in content)
    return Html(f"<{tag}{named}>{inner}</{tag}>")


def page(title: str, body: Iterable[object]) -> str:
    """Return a whole page.

    Args:
        title: title of the window and heading of the page.
        body: texts and markup below the heading.
    """
    head = element("head", Html(_HEAD), element("title", title), element("style", Html(_STYLE)))
    return f"<!doctype html><html>{head}{element('body', element('h1', title), *body)}</html>\n"


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    floats: str = ".6g",
    absent: str = "",
) -> Html:
    """Return a table; columns of numbers are aligned on the right.

    Args:
        header: titles of the columns; empty for a table without a header.
        rows: cells of each row: texts, markup, numbers or None.
        floats: format of numbers that are not whole.
        absent: what stands for None.
    """
    listed = [list(row) for row in rows]
    numeric = [_is_numeric(column) for column in zip(*listed, strict=True)]
    numeric = numeric or [False] * len(header)

    lines = [_line("td", [_shown(cell, floats, absent) for cell in row], numeric) for row in listed]
    if header:
        lines.insert(0, _line("th", header, numeric))
    return element("table", *lines)


def bar(share: float) -> Html:
    """Return a horizontal bar, `share` (0 to 1) of it filled."""
    return element("div", element("div", style=f"width:{100 * share:.1f}%"), class_="bar")


def picture(caption: str, png: bytes) -> Html:
    """Return an image that the page itself holds, with its caption."""
    image = f'<img alt="{html.escape(caption)}" src="{_data_uri("image/png", png)}">'
    return element("figure", Html(image), element("figcaption", caption))


def sound(caption: str, content: bytes, kind: str = "audio/wav") -> Html:
    """Return a player of a sound that the page itself holds, with its caption."""
    player = f'<audio controls src="{_data_uri(kind, content)}"></audio>'
    return element("figure", element("figcaption", caption), Html(player))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _line(tag: str, cells: Sequence[object], numeric: Sequence[bool]) -> Html:
    """Return a row of a table, cells of numeric columns marked as numbers."""
    attributes = [{"class_": "number"} if is_number else {} for is_number in numeric]
    return element(
        "tr",
        *(element(tag, cell, **own) for cell, own in zip(cells, attributes, strict=True)),
    )


def _shown(cell: object, floats: str, absent: str) -> object:
    if cell is None:
        return absent
    if isinstance(cell, Real) and not isinstance(cell, Integral):
        return format(float(cell), floats)
    return cell


def _is_numeric(column: Iterable[object]) -> bool:
    """Tell whether a column holds numbers alone; None may stand between them."""
    values = [value for value in column if value is not None]
    return bool(values) and all(map(_is_number, values))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
