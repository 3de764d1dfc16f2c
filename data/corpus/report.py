"""The report of a preparation: one HTML page to look at in any browser (see data.html_page)."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from data.corpus.ledger import Ledger
from data.files import put_file
from data.html_page import (
    Html,
    Tile,
    bars,
    element,
    filter_box,
    histogram,
    page,
    section,
    table,
    tiles,
)
from data.quality import sections
from data.quality.players import SECONDS
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
    name = ledger.transcript.rstrip("/").rpartition("/")[2]
    return page(
        name, _body(ledger, phones, warnings, players or {}), "Preparation", ledger.transcript
    )


def _body(
    ledger: Ledger,
    phones: Mapping[str, Counter[str]],
    warnings: Sequence[str],
    players: Mapping[str, bytes | str],
) -> Iterator[Html]:
    yield tiles(_tiles(ledger))
    yield section("Warnings", *(element("p", warning) for warning in warnings))
    reasons = ledger.reasons().items()
    yield section("Rejected lines by reason", bars(("reason", "lines"), reasons))
    yield section("Languages", _groups("language", ledger.by("language")))
    if ledger.pairs:
        amounts = sections.amounts(ledger.pairs)
        yield section("Minutes per speaker and language", amounts)
    if ledger.quality.voices:
        yield section(
            "Quality of the recordings",
            sections.by_speaker(ledger.quality),
            note="Medians of the lines that are kept; what is beyond a threshold of data.quality, "
            "rejected lines too, stands in quality.jsonl.",
        )
    if ledger.quality.worst:
        worst = sections.worst(ledger.quality, players)
        yield section(
            "The worst lines",
            filter_box("Show only"),
            worst,
            note="Those that are furthest beyond the thresholds come first, then those that are "
            f"nearest to one. A player has the first {SECONDS} seconds.",
        )
    yield _lengths(ledger.kept)
    yield section("Speakers", _groups("speaker", ledger.by("speaker")[:SPEAKERS_SHOWN]))
    yield _unread(ledger)
    yield section(
        "Phones",
        element("div", *map(_phones, sorted(phones.items())), class_="cards") if phones else "",
        note=f"Symbols that no kept line holds: {_unheard(phones) or 'none'}",
    )
    yield _rejects(ledger)


def _tiles(ledger: Ledger) -> list[Tile]:
    seconds = np.asarray(ledger.kept)
    found = [
        Tile("lines", f"{ledger.lines}"),
        Tile("kept", f"{len(seconds)}", note=f"{ledger.hours:.2f} h"),
        Tile("rejected", f"{len(ledger.rejects)}"),
    ]
    if len(seconds):
        low, middle, high = np.quantile(seconds, [0, 0.5, 1])
        spread = f"{low:.2f} s to {high:.2f} s"
        found.append(Tile("half are shorter than", f"{middle:.2f}", "s", spread))
    return found


def _lengths(seconds: Sequence[float]) -> Html:
    """Return a histogram of lengths."""
    if not len(seconds):
        return Html()
    counts, edges = np.histogram(seconds, BINS)
    shown = histogram(counts.tolist(), [f"{edge:.2f} s" for edge in edges], "lines")
    return section("Lengths", shown)


def _groups(what: str, groups: Iterable[tuple[str, int, float, int]]) -> Html:
    rows = ((name, seconds / 3600, kept, rejected) for name, kept, seconds, rejected in groups)
    return bars((what, "hours", "lines kept", "rejected"), rows, floats=".3f")


def _phones(of_language: tuple[str, Counter[str]]) -> Html:
    language, counts = of_language
    return element("div", element("h3", language), bars(("phone", "times"), counts.most_common()))


def _unheard(phones: Mapping[str, Counter[str]]) -> str:
    heard = set().union(*phones.values())
    return " ".join(symbol for symbol in SYMBOLS if symbol not in heard)


def _unread(ledger: Ledger) -> Html:
    """Return the characters that no rule read, if there are any, with the first line of each."""
    counts = ledger.unread_characters()
    if not counts:
        return Html()
    share = counts.total() / max(1, ledger.characters)
    first: dict[str, str] = {}
    for line in ledger.unread:
        for char in line.unread:
            first.setdefault(char, f"{line.source}:{line.number}")
    rows = (
        (char, unicodedata.name(char, f"U+{ord(char):04X}").lower(), count, first[char])
        for char, count in counts.most_common(UNREAD_SHOWN)
    )
    return section(
        "Characters that no rule reads",
        table(("character", "name", "times", "first line"), rows),
        note=f"{counts.total()} of {ledger.characters} ({share:.2%})",
    )


def _rejects(ledger: Ledger) -> Html:
    """Return the first rejected lines, if there are any."""
    rows = [
        (
            f"{reject.source}:{reject.number}",
            element("div", reject.reason, class_="whole"),
            reject.detail[:CHARACTERS_SHOWN],
            element("pre", reject.line[:CHARACTERS_SHOWN]),
        )
        for reject in ledger.ordered_rejects()[:REJECTS_SHOWN]
    ]
    if not rows:
        return Html()
    title = f"The first {len(rows)} of {len(ledger.rejects)} rejected lines"
    shown = table(("line", "reason", "what was seen", "text"), rows)
    return section(title, filter_box("Show only"), shown)
