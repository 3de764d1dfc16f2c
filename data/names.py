"""Names of speakers, as lists are read and tables are matched with them."""

import unicodedata

_JOINERS = "\u200c\u200d"


def visible_name(name: str) -> str:
    """Return a name as people see it, composed (NFC) and without invisible characters.

    Characters that join others stay where scripts and emoji need them.
    """
    composed = unicodedata.normalize("NFC", name)
    return "".join(
        char
        for index, char in enumerate(composed)
        if unicodedata.category(char) != "Cf"
        or (char in _JOINERS and composed[index - 1 : index] > "\u02ff")
    ).strip()
