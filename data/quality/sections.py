"""What the report of a preparation says of quality and amounts (data.corpus.report)."""

from collections.abc import Iterator, Mapping, Sequence

from data.html_page import Html, element, sound, table
from data.quality.book import Book, Flagged, Voice

SPEAKERS_SHOWN = 200
CHARACTERS_SHOWN = 300  # of a text, and of what was found
MINUTE = 60

# most seconds of a speaker -> what can be done with them, and who says so (docs/fine-tuning.md)
_ADVICE = (
    (
        3 * MINUTE,
        "too little: users of this model report some effect from 3 minutes on",
        "https://github.com/YYuX-1145/Bert-VITS2-Integration-package/issues/35",
    ),
    (
        45 * MINUTE,
        "enough to fine-tune from base weights; 45 minutes are said to be plenty",
        "https://github.com/litagin02/Style-Bert-VITS2/blob/master/docs/FAQ.md",
    ),
    (
        600 * MINUTE,
        "plenty to fine-tune; from scratch 2 hours were enough for one, 10 hours not for another",
        "https://github.com/jaywalnut310/vits/issues/87",
    ),
    (
        float("inf"),
        "plenty to fine-tune, and enough to try it from scratch",
        "https://github.com/jaywalnut310/vits/issues/87",
    ),
)


def amounts(pairs: Mapping[tuple[str, str], float]) -> Html:
    """Return minutes per speaker and language, with advice per speaker.

    Args:
        pairs: speaker and language -> seconds that are kept.
    """
    languages = sorted({language for _, language in pairs})
    totals: dict[str, float] = {}
    for (speaker, _), seconds in pairs.items():
        totals[speaker] = totals.get(speaker, 0.0) + seconds
    rows = []
    for speaker in sorted(totals, key=lambda name: (-totals[name], name))[:SPEAKERS_SHOWN]:
        found = [pairs.get((speaker, language)) for language in languages]
        minutes = [None if seconds is None else seconds / MINUTE for seconds in found]
        rows.append((speaker, totals[speaker] / MINUTE, _advice(totals[speaker]), *minutes))
    header = ("speaker", "minutes", "enough?", *(f"{language}, minutes" for language in languages))
    return table(header, rows, floats=".1f")


def _advice(seconds: float) -> Html:
    """Return what an amount of speech is good for."""
    _, words, source = next(each for each in _ADVICE if seconds < each[0])
    link = element("a", "source", href=source)
    return element("div", f"{_time(seconds)}: {words} (", link, ")", class_="words")


def _time(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.0f} seconds"
    minutes = seconds / MINUTE
    if round(minutes) == 1:
        return "1 minute"
    return f"{minutes:.0f} minutes" if minutes < 2 * MINUTE else f"{minutes / MINUTE:.1f} hours"


def by_speaker(book: Book) -> Html:
    """Return the medians of what was measured, per speaker, and the lines to look at."""
    header = (
        *("speaker", "lines", "beyond a threshold", "level, dB", "SNR, dB", "bandwidth, kHz"),
        *("silence, %", "clipped, %", "phones per\u00a0s"),
    )
    ordered = sorted(book.voices.items(), key=lambda item: (-item[1].lines, item[0]))
    rows = [_voice_row(name, voice) for name, voice in ordered[:SPEAKERS_SHOWN]]
    return table(header, rows, floats=".1f")


def _voice_row(name: str, voice: Voice) -> Sequence[object]:
    found = voice.measures
    shown: list[float | None] = [None] * 6
    if found:
        shown = [
            found["level"],
            found["snr"],
            found["bandwidth"] / 1000,
            100 * found["silence"],
            100 * found["clipped"],
            found["rate"],
        ]
    kinds = sorted(voice.findings.items(), key=lambda item: (-item[1], item[0]))
    if voice.measured < voice.lines:
        kinds.append(("not measured", voice.lines - voice.measured))
    counts = [element("div", f"{count} {kind}", class_="whole") for kind, count in kinds]
    return (name, voice.lines, element("div", *counts) if counts else None, *shown)


def worst(book: Book, players: Mapping[str, bytes | str]) -> Html:
    """Return the worst lines, each with its player, what is wrong with it and its text.

    Args:
        book: what was found.
        players: recording -> sound as MP3, or why there is none.
    """
    cards = (_card(place, line, players) for place, line in enumerate(book.worst, start=1))
    return element("div", *cards, class_="cards")


def _card(place: int, line: Flagged, players: Mapping[str, bytes | str]) -> Html:
    recording = line.uri.rpartition("/")[2]
    caption = f"{place}. {line.speaker}: {recording}, {line.source}:{line.number}"
    heard = players.get(line.uri, "")
    if isinstance(heard, bytes):
        player = sound(caption, heard, "audio/mpeg")
    else:
        player = element("figcaption", f"{caption} {heard}")
    return element(
        "div",
        player,
        element("p", line.text[:CHARACTERS_SHOWN], class_="said"),
        *_found(line),
        class_="card",
    )


def _found(line: Flagged) -> Iterator[Html]:
    """Yield what is wrong with a line, a paragraph each."""
    if not line.findings:
        yield element("p", "within all thresholds", class_="note")
    for finding in line.findings:
        kind = element("strong", finding.kind, class_="worse")
        yield element("p", kind, ": ", finding.detail[:CHARACTERS_SHOWN], class_="note")
    if line.rejected:
        yield element("p", element("span", "rejected", class_="badge"), class_="note")
