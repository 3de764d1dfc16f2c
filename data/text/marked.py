"""Texts of several languages, `[ZH]你好。[EN]Hello.`, and long texts cut into sentences."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.text.symbols import LANGUAGE_IDS

LONGEST_SENTENCE = 200
"""Characters beyond which a sentence is cut at a comma: some BERT models read 510 tokens at once."""

_MARK = re.compile(rf"\[({'|'.join(LANGUAGE_IDS)})\]", re.IGNORECASE)
_CLOSING = """["'”’」』）)]"""
_END = re.compile(  # a quotation that と follows is part of a Japanese sentence
    rf"(?:\n\s*\n|[。！？!?]++(?:(?!{_CLOSING})|{_CLOSING}++(?!と))|(?P<stop>\.+){_CLOSING}*(?=\s|$))\s*"
)
_COMMA = re.compile(r"[，、；]|[,;](?=\s)")
# titles and initials
_NO_END = re.compile(r"\b(Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|No|e\.g|i\.e|[A-Z])$")
_LINE_BREAK = re.compile(r"\s*\n\s*")


@dataclass(frozen=True)
class Part:
    """A stretch of text in one language.

    Attributes:
        language: of `symbols.LANGUAGE_IDS`.
        text: not blank.
    """

    language: str
    text: str


def parse(text: str, language: str | None = None) -> list[Part]:
    """Cuts a text at its marks `[ZH]`, `[JP]`, `[EN]`, each of which holds until the next one.

    Args:
        text: with or without marks.
        language: of what stands before the first mark.

    Raises:
        ValueError: nothing but marks, an unknown language, or text before the first mark and no
            language.
    """
    choice = ", ".join(LANGUAGE_IDS)
    if language is not None and language not in LANGUAGE_IDS:
        raise ValueError(f"no language {language!r}; choose of {choice}")
    first, *rest = _MARK.split(text)
    if first.strip() and language is None:
        raise ValueError(
            f"the language of {first[:40]!r} is not known: give a language ({choice}) or a mark before it"
        )
    parts: list[Part] = []
    for spoken, piece in [
        (language or "", first),
        *zip(map(str.upper, rest[::2]), rest[1::2], strict=True),
    ]:
        if parts and parts[-1].language == spoken:
            parts[-1] = Part(spoken, parts[-1].text + piece)
        elif piece.strip():
            parts.append(Part(spoken, piece))
    if not parts:
        raise ValueError(f"there is nothing to say in {text!r}: give a text")
    return parts


def marked(parts: Sequence[Part]) -> str:
    """The text that `parse` cuts into these parts."""
    return "".join(f"[{part.language}]{part.text}" for part in parts)


def sentences(parts: Sequence[Part]) -> list[list[Part]]:
    """Cuts a text into sentences, which may hold several languages.

    A sentence ends with 。！？!? or a blank line, with a full stop before a space, and where it is
    longer than LONGEST_SENTENCE with a comma. Single line breaks end nothing.
    """
    found: list[list[Part]] = [[]]
    for part in parts:
        for piece, ends in _pieces(part.text):
            joined = _LINE_BREAK.sub(" " if part.language == "EN" else "", piece.strip())
            if joined:
                found[-1].append(Part(part.language, joined))
            if ends and _has_words(found[-1]):
                found.append([])
    # stray punctuation belongs to the sentence before
    if len(found) > 1 and not _has_words(found[-1]):
        found[-2].extend(found.pop())
    return found


def _has_words(parts: Sequence[Part]) -> bool:
    return any(char.isalnum() for part in parts for char in part.text)


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Stretches of a text, and whether a sentence ends with each."""
    start = 0
    for match in _END.finditer(text):
        if not (match["stop"] == "." and _NO_END.search(text, start, match.start())):
            yield from _shortened(text[start : match.end()])
            yield "", True
            start = match.end()
    yield from _shortened(text[start:])


def _shortened(text: str) -> Iterator[tuple[str, bool]]:
    """A text in pieces of at most LONGEST_SENTENCE characters, as far as it has commas."""
    start = last = 0
    for match in _COMMA.finditer(text):
        if match.end() - start > LONGEST_SENTENCE and last > start:
            yield text[start:last], True
            start = last
        last = match.end()
    if len(text) - start > LONGEST_SENTENCE and last > start:
        yield text[start:last], True
        start = last
    yield text[start:], False
