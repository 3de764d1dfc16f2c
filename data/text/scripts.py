"""Which language a text seems to be in, by its script: to name a wrong language column."""

import unicodedata
from collections import Counter

from data.text.languages import LANGUAGES

_OF_SCRIPT = {"HIRAGANA": "JP", "KATAKANA": "JP", "CJK": "ZH", "HANGUL": "KO", "LATIN": "EN"}
_SMALL_WORD = 2
"""Letters of the shortest word that shows a language; fewer are a name, as in A4."""


def foreign_words(text: str) -> bool:
    """Tell whether a Chinese or Japanese text holds English words and nothing of its own script.

    Capitals alone are names (OK, VIP), and so are letters beside digits (iPhone 12).
    """
    scripts = _scripts(text)
    own = scripts["CJK"] + scripts["HIRAGANA"] + scripts["KATAKANA"]
    words = [word for word in text.split() if word.isascii() and len(word) >= _SMALL_WORD]
    small = any(word.strip(".,!?;:'\"").isalpha() and not word.isupper() for word in words)
    return not own and small and not any(map(str.isdigit, text))


def seeming_language(text: str, language: str) -> str | None:
    """Return the language or script that a text seems to be in rather than that of its column.

    Args:
        text: text of a line.
        language: code that its column names.

    Returns:
        A code of `data.text.languages`, the name of a script for which there is none, or None.
    """
    scripts = _scripts(text)
    if scripts["HIRAGANA"] + scripts["KATAKANA"] and language != "JP":
        return "JP"
    if not scripts:
        return None
    script, _ = scripts.most_common(1)[0]
    seems = _OF_SCRIPT.get(script, f"{script.capitalize()} letters")
    same = seems == language or (script == "CJK" and language in ("ZH", "JP"))
    if same or (seems == "KO" and language == "KO"):
        return None
    return seems if seems in LANGUAGES or len(seems) > 2 else f"{script.capitalize()} letters"


def _scripts(text: str) -> Counter[str]:
    """Count a text's letters by the first word of their Unicode names, which is their script."""
    names = (unicodedata.name(char, "") for char in text if char.isalpha())
    return Counter(name.split(" ")[0].split("-")[0] for name in names if name)
