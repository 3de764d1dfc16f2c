"""HTML pages for any browser: one template and stylesheet, nothing to fetch; text is escaped.

A page is put together from `Html`, which is markup already. Any other string is taken as text and
escaped, so that what a transcript or a configuration says cannot become markup. A page's policy
(Content-Security-Policy) lets a browser run the project's own scripts alone. The templates lie in
data/templates.
"""

import base64
import functools
import hashlib
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import jinja2
from markupsafe import Markup

from data.files import is_local

_FOLDER = Path(__file__).with_name("templates")


class Html(Markup):
    """Markup: it becomes part of a page as it is."""

    __slots__ = ()


@dataclass(frozen=True)
class Tile:
    """A number that a page shows large.

    Attributes:
        name: what it is.
        value: the number, as it is shown.
        unit: its unit.
        note: what it is compared with.
        mark: `better`, `worse` or nothing.
    """

    name: str
    value: str
    unit: str = ""
    note: str = ""
    mark: str = ""


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )


@functools.cache
def asset(name: str) -> Html:
    """Return a file of data/templates that pages hold as it is: a stylesheet or a script."""
    return Html((_FOLDER / name).read_text(encoding="utf-8"))


def _component(name: str, *arguments: object) -> Html:
    module: Any = _templates().get_template("components.html.jinja").module
    return Html(getattr(module, name)(*arguments))


def rendered(template: str, **values: object) -> Html:
    """Return what a template of data/templates makes of values, which it escapes."""
    return Html(_templates().get_template(template).render(**values))


def text(value: object) -> Html:
    """Return a value as markup: `Html` as it is, anything else as escaped text."""
    return Html.escape(value)


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Return an element such as `<h2>Lengths</h2>`.

    Args:
        tag: name of the element.
        *content: texts and markup inside it.
        **attributes: its attributes; `class_` is written as `class`, `data_words` as `data-words`.
    """
    named = Html().join(
        Html(' {}="{}"').format(name.rstrip("_").replace("_", "-"), value)
        for name, value in attributes.items()
    )
    inner = Html().join(map(text, content))
    return Html("<{0}{1}>{2}</{0}>").format(Html(tag), named, inner)


def page(
    title: str,
    body: Iterable[object],
    kind: str = "",
    lead: str = "",
    links: Sequence[Html] = (),
    scripts: Sequence[str] = (),
    policy: str = "",
) -> str:
    """Return a whole page.

    Args:
        title: title of the window and heading of the page.
        body: texts and markup below the heading.
        kind: what sort of page it is, above the heading.
        lead: a sentence below the heading.
        links: to what belongs to it (see `link`).
        scripts: names of scripts beside that of all pages (see `asset`).
        policy: what the page may do beside showing what it holds.
    """
    held = [asset(name) for name in ("page.js", *scripts)]
    allowed = " ".join(f"'sha256-{_sha256(script)}'" for script in held)
    rules = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; img-src data:"
    return (
        _templates()
        .get_template("page.html.jinja")
        .render(
            title=title,
            body=list(body),
            kind=kind,
            lead=lead,
            links=links,
            style=asset("page.css"),
            scripts=held,
            # data: sounds that the page holds
            policy=f"{rules}; {policy or 'media-src data:'}",
        )
    )


def section(title: str, *content: object, note: str = "", **attributes: object) -> Html:
    """Return a part of a page with its heading; nothing if it has no content.

    Args:
        title: its heading; may be empty.
        *content: texts and markup inside it; empty ones are left out.
        note: a sentence below the heading.
        **attributes: see `element`.
    """
    held = [part for part in content if part]
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    return _component("section", title, held, note, named) if held else Html()


def tiles(shown: Sequence[Tile]) -> Html:
    """Return numbers side by side; nothing if there are none."""
    return _component("tiles", shown) if shown else Html()


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    floats: str = ".6g",
    absent: str = "",
    sortable: bool = False,
) -> Html:
    """Return a table; columns of numbers are aligned on the right.

    Args:
        header: titles of the columns; empty for a table without a header.
        rows: cells of each row: texts, markup, numbers or None.
        floats: format of numbers that are not whole.
        absent: what stands for None.
        sortable: whether a click on a title sorts the rows.
    """
    listed = [list(row) for row in rows]
    numeric = [_is_numeric(column) for column in zip(*listed, strict=True)]
    numeric = numeric or [False] * len(header)
    cells = [[_shown(cell, floats, absent) for cell in row] for row in listed]
    return _component("table", header, cells, numeric, sortable)


def bars(header: Sequence[str], rows: Iterable[Sequence[Any]], floats: str = ".6g") -> Html:
    """Return a table of names and numbers, each number with a bar of its length beside it.

    Args:
        header: what the names are, what the numbers are with their unit, and further columns.
        rows: name, number, and further cells.
        floats: format of numbers that are not whole.

    Returns:
        Nothing if there are no rows.
    """
    listed = list(rows)
    if not listed:
        return Html()
    # a table of zeros has bars of length zero
    most = max(number for _, number, *_ in listed) or 1
    lines = [(name, number, bar(number / most), *others) for name, number, *others in listed]
    first, second, *others = header
    return table((first, second, "", *others), lines, floats)


def histogram(counts: Sequence[int], edges: Sequence[str], what: str) -> Html:
    """Return columns side by side, each as high as its count.

    Args:
        counts: how many there are from each edge to the next one.
        edges: one more than counts, with unit.
        what: what is counted.
    """
    most = max(counts, default=0) or 1
    columns = [
        (count / most, f"{low} to {high}: {count} {what}")
        for count, (low, high) in zip(counts, pairwise(edges), strict=True)
    ]
    return _component("histogram", columns, f"{most} {what}", edges)


def bar(share: float) -> Html:
    """Return a horizontal bar, `share` (0 to 1) of it filled."""
    return _component("bar", share)


def picture(caption: str, png: bytes) -> Html:
    """Return an image that the page itself holds, with its caption."""
    return _component("picture", caption, _data_uri("image/png", png))


def drawing(caption: str, svg: Html) -> Html:
    """Return a drawing that takes the page's colours, with its caption."""
    return element("figure", svg, element("figcaption", caption))


def sound(caption: str, content: bytes, kind: str = "audio/wav") -> Html:
    """Return a player of a sound that the page itself holds, with its caption."""
    return _component("sound", caption, _data_uri(kind, content))


def filter_box(words: str) -> Html:
    """Return a field that hides what does not hold its words: table rows, and `data_words`.

    It applies to the section in which it stands.
    """
    return _component("filter", words)


def link(words: str, target: str, folder: str) -> Html:
    """Return a link from a page in a folder to a file or folder; its path alone in a store.

    Args:
        words: what is shown.
        target: path or URI of the file or folder.
        folder: path or URI of the folder of the page.
    """
    place, begin = _absolute(target), _absolute(folder)
    if place.partition("://")[0] != begin.partition("://")[0]:
        return Html("<span>{} <code>{}</code></span>").format(words, target)
    near = posixpath.relpath(place.partition("://")[2], begin.partition("://")[2])
    return element("a", words, href=quote(near))


def _absolute(uri: str) -> str:
    return unquote(Path(uri).absolute().as_uri()) if is_local(uri) else uri


def tensorboard(folder: str) -> Html:
    """Return how TensorBoard shows a folder or URI."""
    address = element("a", "TensorBoard", href="http://localhost:6006/")
    return Html("<span>{}: <code>tensorboard --logdir {}</code></span>").format(address, folder)


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


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
    # a number that is marked as better or worse is markup of one
    if isinstance(value, Marked):
        return True
    return isinstance(value, Real) and not isinstance(value, bool)


class Marked(Html):
    """A number that is marked as better or worse."""

    __slots__ = ()


def marked(shown: str, mark: str) -> Html:
    """Return a number as it is shown, marked as `better` (▲) or `worse` (▼), or neither."""
    signs = {"better": " ▲", "worse": " ▼"}
    if mark not in signs:
        return Marked(text(shown))
    return Marked(element("span", shown + signs[mark], class_=mark))
