"""What `data.text.normaliser: ours` changes: `python -m tools.text_changes ZH=FILE EN=FILE ...`.

A file has one text per line. Prints, as Markdown, every text whose phones or tones differ from
those of `reference`: why, what is written out otherwise, and what is read otherwise.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from data.text.front_end import NORMALISERS, FrontEnd, FrontEndError, Phonemes, get_front_end


def main(argv: Sequence[str]) -> int:
    """Print the changes of each file."""
    for argument in argv:
        language, _, name = argument.partition("=")
        texts = Path(name).read_text(encoding="utf-8").splitlines()
        found = list(changes(language, texts))
        print(f"## {language}: {len(found)} of {len(texts)} texts\n")
        print("| text | why | written out | read |\n|---|---|---|---|")
        for row in found:
            print("|", " | ".join(cell.replace("|", "\\|") for cell in row), "|")
        print()
    return 0


_WHY = (
    ("an address on the internet", r"@\w|www\.|\.com"),
    ("a price", r"[$€£¥￥]"),
    ("a time", r"\d:\d\d"),
    ("a date", r"\d{4}[-/]\d+[-/]\d+"),
    ("a telephone number, or digits one by one", r"\d{2,}-\d{3,}"),
    ("a sum", r"\d\s*[=+×]|\^\d"),
    ("a percentage or degrees", r"[%％℃°‰]"),
    ("a unit", r"\d\s?(?:kg|km|cm|mm|ml|mph|GB|m|g|ft)\b|\d'\d"),
    ("a range", r"\d\s*[-–~〜～]\s*\d"),
    ("a fraction", r"\d/\d|[½¼¾]"),
    ("an abbreviation", r"\b(?:Dr|Mr|Mrs|Ms|St|etc|[A-Za-z]\.[a-z])\b\.?|\b(?:[A-Z]\.){2}"),
    ("a Roman number", r"\b[IVX]{2,}\b"),
    ("a grouped, long or decimal number", r"\d[,.]\d|\d{4,}"),
    ("letters or a Latin word", r"[A-Za-zＡ-Ｚａ-ｚ]"),
    ("a long vowel", r"[ー〜～ぁぃぅぇぉ゛]"),
    ("a space that is a pause", r"\s"),
    ("a colon or semicolon that is a pause", r"[:;：；]"),
)


def why(language: str, text: str, written_out: str) -> str:
    """Return the kind of rule that a text is read otherwise by."""
    if language == "ZH" and not written_out:
        return "的地得, 一, a neutral tone or a character with several readings"
    if language == "JP" and not written_out:
        return "a word with several readings"
    words = language == "EN"
    kinds = (kind for kind, pattern in _WHY if re.search(pattern, text))
    others = ("a space that is a pause", "letters or a Latin word", "a long vowel")
    found = next((kind for kind in kinds if not (words and kind in others)), "")
    if words and not found and not written_out:
        return "a word that is made of two"
    return found or ("capitals letter by letter, or a sign" if words else "a sign")


def changes(language: str, texts: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield each text that is read otherwise, why, how it is written out, and how it is read."""
    ours, reference = (get_front_end(language, normaliser=name) for name in NORMALISERS)
    for text in texts:
        new = _read(ours, text)
        old = _read(reference, text)
        if isinstance(new, str) or isinstance(old, str):
            if new != old:
                yield text, why(language, text, "text"), "", f"{_outcome(old)} → {_outcome(new)}"
        elif (new.phones, new.tones) != (old.phones, old.tones):
            written = _differences(old.norm_text, new.norm_text)
            read = _differences(_said(old), _said(new))
            yield text, why(language, text, written), written, read


def _outcome(read: Phonemes | str) -> str:
    return read if isinstance(read, str) else "read"


def _read(front_end: FrontEnd, text: str) -> Phonemes | str:
    try:
        return front_end(text)
    except FrontEndError as error:
        return error.reason


def _said(phonemes: Phonemes) -> list[str]:
    pairs = zip(phonemes.phones, phonemes.tones, strict=True)
    return [f"{phone}{tone or ''}" for phone, tone in pairs]


def _differences(old: Sequence[str], new: Sequence[str]) -> str:
    """Return what differs, `before -> after`, joined by commas."""
    space = "" if isinstance(old, str) else " "
    return ", ".join(
        f"{space.join(old[a:b]) or '∅'} → {space.join(new[c:d]) or '∅'}"
        for what, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        if what != "equal"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
