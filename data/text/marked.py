"""Texts of several languages, `[ZH]你好。[EN]Hello.`, and long texts cut into sentences."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.text.languages import LANGUAGES

LONGEST_SENTENCE = 200
"""Characters beyond which a sentence is cut at a comma; some BERT models read only 510 tokens."""

_CLOSING = """["'”’」』）)]"""
_END = re.compile(
    r"(?:\n\s*\n"
    # a quotation that と follows is part of a Japanese sentence
    rf"|[。！？!?]++(?:(?!{_CLOSING})|{_CLOSING}++(?!と))"
    rf"|(?P<stop>\.+){_CLOSING}*(?=\s|$))\s*"
)
_COMMA = re.compile(r"[，、；]|[,;](?=\s)")
# titles and initials
_NO_END = re.compile(r"\b(Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|No|e\.g|i\.e|[A-Z])$")
_LINE_BREAK = re.compile(r"\s*\n\s*")


@dataclass(frozen=True)
class Part:
    """A stretch of text in one language.

    Attributes:
        language: code of the language.
        text: what is said; not blank.
    """

    language: str
    text: str


def parse(text: str, language: str | None = None) -> list[Part]:
    """Cut a text at its marks `[ZH]`, `[JP]`, `[EN]`, each of which holds until the next one.

    Args:
        text: text with or without marks.
        language: code of the language of what stands before the first mark.

    Raises:
        ValueError: nothing but marks, an unknown language, or text before the first mark and no
            language.
    """
    choice = ", ".join(LANGUAGES)
    if language is not None and language not in LANGUAGES:
        raise ValueError(f"no language {language!r}; choose of {choice}")
    mark = re.compile(rf"\[({'|'.join(LANGUAGES)})\]", re.IGNORECASE)
    first, *rest = mark.split(text)
    if first.strip() and language is None:
        raise ValueError(
            f"the language of {first[:40]!r} is not known: "
            f"give a language ({choice}) or a mark before it"
        )

    marks = map(str.upper, rest[::2])
    parts: list[Part] = []
    for spoken, piece in [(language or "", first), *zip(marks, rest[1::2], strict=True)]:
        if parts and parts[-1].language == spoken:
            parts[-1] = Part(spoken, parts[-1].text + piece)
        elif piece.strip():
            parts.append(Part(spoken, piece))
    if not parts:
        raise ValueError(f"there is nothing to say in {text!r}: give a text")
    return parts


def marked(parts: Sequence[Part]) -> str:
    """Return the text that `parse` cuts into these parts."""
    return "".join(f"[{part.language}]{part.text}" for part in parts)


def sentences(parts: Sequence[Part]) -> list[list[Part]]:
    """Cut a text into sentences, which may hold several languages.

    A sentence ends with 。！？!? or a blank line, with a full stop before a space, and where it is
    longer than LONGEST_SENTENCE with a comma. Single line breaks end nothing.
    """
    found: list[list[Part]] = [[]]
    for part in parts:
        for piece, ends in _pieces(part.text):
            joiner = LANGUAGES[part.language].joiner
            if joined := _LINE_BREAK.sub(joiner, piece.strip()):
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
    """Yield stretches of a text, and whether a sentence ends with each."""
    start = 0
    for match in _END.finditer(text):
        if match["stop"] == "." and _NO_END.search(text, start, match.start()):
            continue
        yield from _shortened(text[start : match.end()])
        yield "", True
        start = match.end()
    yield from _shortened(text[start:])


def _shortened(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a text in pieces of at most LONGEST_SENTENCE characters, as far as it has commas."""
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
