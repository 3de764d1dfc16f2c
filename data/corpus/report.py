"""The report of a preparation: one HTML page without scripts or images, to be looked at in any browser."""

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data.corpus.ledger import Ledger
from data.files import put_file
from data.text.symbols import SYMBOLS

BINS = 24
SPEAKERS_SHOWN = 200
REJECTS_SHOWN = 200
_STYLE = """
body { font: 14px sans-serif; margin: 2em; max-width: 70em }
table { border-collapse: collapse } td, th { padding: 1px 8px; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums } td.bar { width: 24em }
td.bar div { background: #4878a8; height: 0.9em } pre { margin: 0; white-space: pre-wrap }
"""


def save_report(uri: str, ledger: Ledger, phones: Mapping[str, Counter[str]]) -> None:
    """Write the page.

    Args:
        uri: file or URI.
        ledger: what was kept and rejected.
        phones: language -> how often each phone occurs in what was kept.
    """
    put_file(uri, report_page(ledger, phones).encode(errors="backslashreplace"))


def report_page(ledger: Ledger, phones: Mapping[str, Counter[str]]) -> str:
    """The page: balance, lengths, hours a speaker, phones a language, rejected lines. See `save_report`."""
    parts = [
        f"<h1>{_text(ledger.transcript)}</h1>",
        f"<p>{ledger.lines} lines: {len(ledger.kept)} kept ({ledger.hours:.2f} h), {len(ledger.rejects)} rejected</p>",
        "<h2>Rejected lines by reason</h2>",
        _bars((reason, count, "") for reason, count in ledger.reasons().items()),
        "<h2>Languages</h2>",
        _groups(ledger.by("language")),
        "<h2>Lengths</h2>",
        _lengths([kept.seconds for kept in ledger.kept]),
        "<h2>Hours a speaker</h2>",
        _groups(ledger.by("speaker")[:SPEAKERS_SHOWN]),
    ]
    for language, counted in sorted(phones.items()):
        parts += [
            f"<h2>Phones, {_text(language)}</h2>",
            _bars((phone, n, "") for phone, n in counted.most_common()),
        ]
    unheard = [
        symbol for symbol in SYMBOLS if not any(symbol in counted for counted in phones.values())
    ]
    parts.append(f"<p>Symbols that no kept line holds: {_text(' '.join(unheard)) or 'none'}</p>")
    parts += [f"<h2>The first {REJECTS_SHOWN} rejected lines</h2>", _rejects(ledger)]
    title = f"Preparation of {_text(ledger.transcript)}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _lengths(seconds: Sequence[float]) -> str:
    """A histogram of lengths."""
    if not seconds:
        return ""
    counts, edges = np.histogram(seconds, BINS)
    low, middle, high = np.quantile(seconds, [0, 0.5, 1])
    rows = ((f"{left:.2f} s", int(n), "") for left, n in zip(edges[:-1], counts, strict=True))
    return f"<p>{low:.2f} s to {high:.2f} s, half of them below {middle:.2f} s</p>{_bars(rows)}"


def _groups(groups: Iterable[tuple[str, int, float, int]]) -> str:
    return _bars(
        (name, round(seconds / 3600, 3), f"h, {kept} kept, {rejected} rejected")
        for name, kept, seconds, rejected in groups
    )


def _bars(rows: Iterable[tuple[str, float, str]]) -> str:
    """A table of names, numbers, bars as long as these, and notes."""
    listed = list(rows)
    most = max((number for _, number, _ in listed), default=0) or 1
    return "".join(
        [
            "<table>",
            *(
                f'<tr><td>{_text(name)}</td><td class="n">{number}</td><td class="bar">'
                f'<div style="width:{100 * number / most:.1f}%"></div></td><td>{note}</td></tr>'
                for name, number, note in listed
            ),
            "</table>",
        ]
    )


def _rejects(ledger: Ledger) -> str:
    rows = [
        f"<tr><td>{_text(r.source)}:{r.number}</td><td>{r.reason}</td><td>{_text(r.detail[:300])}</td>"
        f"<td><pre>{_text(r.line[:300])}</pre></td></tr>"
        for r in ledger.ordered_rejects()[:REJECTS_SHOWN]
    ]
    return f"<table><tr><th>line</th><th>reason</th><th>what was seen</th><th>text</th></tr>{''.join(rows)}</table>"


def _text(value: str) -> str:
    return html.escape(value)
