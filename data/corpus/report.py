"""The report of a preparation: one HTML page to look at in any browser (see data.html_page)."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from data.corpus.ledger import Ledger
from data.files import put_file
from data.html_page import Html, bar, element, page, table
from data.quality import sections
from data.text.symbols import SYMBOLS

BINS = 24
UNREAD_SHOWN = 50
SPEAKERS_SHOWN = 200
REJECTS_SHOWN = 200
CHARACTERS_SHOWN = 300  # of a rejected line, and of what was seen in it


def save_report(
    uri: str,
    ledger: Ledger,
    phones: Mapping[str, Counter[str]],
    warnings: Sequence[str] = (),
    players: Mapping[str, bytes | str] | None = None,
) -> None:
    """Write the page.

    Args:
        uri: file or URI to write.
        ledger: what was kept and rejected.
        phones: language -> how often each phone occurs in what was kept.
        warnings: what the splits lack.
        players: see data.quality.players.excerpts.
    """
    # transcripts may hold half surrogate pairs, which are no UTF-8
    shown = report_page(ledger, phones, warnings, players)
    put_file(uri, shown.encode(errors="backslashreplace"))


def report_page(
    ledger: Ledger,
    phones: Mapping[str, Counter[str]],
    warnings: Sequence[str] = (),
    players: Mapping[str, bytes | str] | None = None,
) -> str:
    """Return the page: balance, quality, lengths, speakers, phones per language, rejected lines.

    Args: see `save_report`.
    """
    return page(
        f"Preparation of {ledger.transcript}", _body(ledger, phones, warnings, players or {})
    )


def _body(
    ledger: Ledger,
    phones: Mapping[str, Counter[str]],
    warnings: Sequence[str],
    players: Mapping[str, bytes | str],
) -> Iterator[Html]:
    kept = f"{len(ledger.kept)} kept ({ledger.hours:.2f} h)"
    yield element("p", f"{ledger.lines} lines: {kept}, {len(ledger.rejects)} rejected")
    for warning in warnings:
        yield element("p", f"Warning: {warning}")

    yield element("h2", "Rejected lines by reason")
    yield _bars((reason, count, "") for reason, count in ledger.reasons().items())

    yield element("h2", "Languages")
    yield _groups(ledger.by("language"))

    yield element("h2", "Minutes per speaker and language")
    yield sections.amounts(ledger.pairs)

    yield element("h2", "Quality of the recordings")
    yield sections.by_speaker(ledger.quality)

    yield element("h2", "The worst lines")
    yield sections.worst(ledger.quality, players)

    yield element("h2", "Lengths")
    yield from _lengths(ledger.kept)

    yield element("h2", "Hours per speaker")
    yield _groups(ledger.by("speaker")[:SPEAKERS_SHOWN])

    yield from _unread(ledger)

    for language, counts in sorted(phones.items()):
        yield element("h2", f"Phones, {language}")
        yield _bars((phone, count, "") for phone, count in counts.most_common())
    yield element("p", f"Symbols that no kept line holds: {_unheard(phones) or 'none'}")

    yield element("h2", f"The first {REJECTS_SHOWN} rejected lines")
    yield _rejects(ledger)


def _lengths(seconds: Sequence[float]) -> Iterator[Html]:
    """Yield a histogram of lengths, and its summary before it."""
    if not len(seconds):
        return
    low, middle, high = np.quantile(seconds, [0, 0.5, 1])
    yield element("p", f"{low:.2f} s to {high:.2f} s, half of them below {middle:.2f} s")

    counts, edges = np.histogram(seconds, BINS)
    bins = zip(edges[:-1], counts, strict=True)
    yield _bars((f"{left:.2f} s", int(count), "") for left, count in bins)


def _groups(groups: Iterable[tuple[str, int, float, int]]) -> Html:
    return _bars(
        (name, round(seconds / 3600, 3), f"h, {kept} kept, {rejected} rejected")
        for name, kept, seconds, rejected in groups
    )


def _bars(rows: Iterable[tuple[str, float, str]]) -> Html:
    """Return a table of names, numbers, bars of the numbers' lengths, and notes."""
    listed = list(rows)
    # a table of zeros has bars of length zero
    most = max((number for _, number, _ in listed), default=0) or 1
    return table((), ((name, number, bar(number / most), note) for name, number, note in listed))


def _unheard(phones: Mapping[str, Counter[str]]) -> str:
    heard = set().union(*phones.values())
    return " ".join(symbol for symbol in SYMBOLS if symbol not in heard)


def _unread(ledger: Ledger) -> Iterator[Html]:
    """Yield the characters that no rule read, if there are any, with the first line of each."""
    counts = ledger.unread_characters()
    share = counts.total() / max(1, ledger.characters)
    yield element("h2", "Characters that no rule reads")
    yield element("p", f"{counts.total()} of {ledger.characters} ({share:.2%})")
    first: dict[str, str] = {}
    for line in ledger.unread:
        for char in line.unread:
            first.setdefault(char, f"{line.source}:{line.number}")
    yield table(
        ("character", "name", "times", "first line"),
        (
            (char, unicodedata.name(char, f"U+{ord(char):04X}").lower(), count, first[char])
            for char, count in counts.most_common(UNREAD_SHOWN)
        ),
    )


def _rejects(ledger: Ledger) -> Html:
    rows = (
        (
            f"{reject.source}:{reject.number}",
            reject.reason,
            reject.detail[:CHARACTERS_SHOWN],
            element("pre", reject.line[:CHARACTERS_SHOWN]),
        )
        for reject in ledger.ordered_rejects()[:REJECTS_SHOWN]
    )
    return table(("line", "reason", "what was seen", "text"), rows)
