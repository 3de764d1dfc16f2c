"""Transcripts that are not UTF-8: which encoding they seem to be, for the message that says so."""

import codecs
import re

from charset_normalizer import from_bytes

# longest first: UTF-32's mark begins with UTF-16's
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# language of a line -> encodings that its texts were written in before UTF-8
_OF_LANGUAGE = {"ZH": ("gb18030", "big5"), "JP": ("cp932", "euc_jp")}
_NAMES = {
    "gb18030": "GBK (GB18030)",
    "big5": "Big5",
    "cp932": "Shift-JIS (cp932)",
    "euc_jp": "EUC-JP",
    "cp1252": "Windows-1252 (Latin-1)",
}
# what a line or an object has, in either order of bytes
_WIDE_BARS = (b"|\0", b"\0|", b"{\0", b"\0{")
_LOOKED_AT = 1 << 16  # bytes, which are enough to tell
# of a file without a mark: texts have few NULs, ASCII in UTF-16 has one in two bytes
_NUL_SHARE = 0.2


def wide_encoding(content: bytes) -> str | None:
    """Return UTF-16 or UTF-32 if a file seems to be that, with or without its mark.

    Such a file has no lines to look at one by one.
    """
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    head = content[:_LOOKED_AT]
    even = head[0::2].count(0)
    odd = head[1::2].count(0)
    # from the first character on, which is of a path or a brace
    begins = head[:2].count(0) == 1
    if not any(mark in content for mark in _WIDE_BARS):
        return None
    if begins and even + odd > _NUL_SHARE * len(head) and min(even, odd) < 0.1 * (even + odd):
        return "UTF-16"
    return None


def narrow_encoding(lines: bytes) -> str:
    """Return the encoding that lines seem to be which are not UTF-8.

    Args:
        lines: the lines, joined; the languages that they name say which encodings are likely.
    """
    head = lines[:_LOOKED_AT]
    candidates = [
        encoding
        for language, own in _OF_LANGUAGE.items()
        if re.search(rb'[|"]\s*%s\s*[|"]' % language.encode(), head, re.IGNORECASE)
        for encoding in own
    ]
    best = from_bytes(head, cp_isolation=candidates or ["cp1252"]).best()
    return _NAMES.get(best.encoding, best.encoding) if best else "no encoding that is known here"
