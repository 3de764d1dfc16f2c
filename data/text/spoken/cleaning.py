"""What a text holds beside what is said: markup, characters that nobody sees, forms of letters.

The same for all languages; what follows (`data.text.<language>.spoken`) meets plain text.
"""

import html
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BREAK = re.compile(r"<(?:br|p|/p|div|/div|li|/li)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_RUBY = re.compile(r"<ruby[^<>]*>(.*?)</ruby>", re.IGNORECASE | re.DOTALL)
_RUBY_TEXT = re.compile(r"<rt[^<>]*>(.*?)(?:</rt>|(?=<rt|<rp|$))", re.IGNORECASE | re.DOTALL)
_RUBY_ASIDE = re.compile(r"<(r[tp])\b[^<>]*>.*?(?:</\1>|(?=<r[tp]|$))", re.IGNORECASE | re.DOTALL)

_EVENTS = (
    r"laugh\w*|chuckl\w*|giggl\w*|cough\w*|sigh\w*|sniff\w*|gasp\w*|breath\w*|sneez\w*|cry\w*|"
    r"sob\w*|applause|clap\w*|music|noise|silence|pause|inaudible|unintelligible|crosstalk|"
    r"cheer\w*|whisper\w*|"
    r"笑い?|苦笑|爆笑|大笑|微笑|泣|泣き|涙|怒|汗|拍手|音楽|咳|咳嗽|沈黙|無音|ため息|溜息|掌声|音乐|静音|沉默|叹气|哭|笑声|哭声|鼓掌"
)
_EVENT = re.compile(
    rf"[\[(（［【<*]\s*(?:[a-z]+ )?(?:{_EVENTS})(?: [a-z]+)?\s*[\])）］】>*]", re.IGNORECASE
)

# Code points of default-ignorable characters that are not of the category Cf
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\uffa0\ufe00-\ufe0f"
    "\U000e0100-\U000e01ef\ufff9-\ufffb]"
)
_SPACES = re.compile(r"[^\S ]|[\u0085\u2028\u2029]")
_APOSTROPHES = "’ʼ＇`´‛ʻʽˈꞌ՚ʹ′\u0092"
_APOSTROPHE = re.compile(rf"(?<=[^\W\d_])[{_APOSTROPHES}‘](?=[^\W\d_])")
_DASHES = dict.fromkeys("‐‑‒﹣－", "-") | dict.fromkeys("–—―⸺⸻﹘", "—") | {"−": "-"}
_QUOTES = dict.fromkeys("„‟❝❞〝〞＂«»", '"') | dict.fromkeys("‹›❛❜", "'")
_SIGNS = {"⁄": "/", "∕": "/", "∶": ":", "∼": "~", "〜": "~", "～": "~", "∗": "*", "⁎": "*"}
_SIGNS |= {"µ": "μ", "˚": "°", "º": "°", "✕": "×", "✖": "×", "╳": "×", "﹪": "%", "٪": "%"}
_SIGNS |= {"‥": "…", "⋯": "…", "Ω": "Ω", "№": "No.", "℡": "TEL", "〇": "〇"}
_PLAIN = str.maketrans(_DASHES | _QUOTES | _SIGNS)
_POWERS = {char: f"^{digit}" for digit, char in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_VOICED = {"゛": "\u3099", "ﾞ": "\u3099", "゜": "\u309a", "ﾟ": "\u309a"}
_KANA = re.compile("[ぁ-ヺｦ-ﾝ]")
_AREA = re.compile(r"(?<![A-Za-z])([cmk]?m)\^([23])(?!\d)")  # ㎡ is m2 already
_KNOWN = re.compile("[\u0020-\u024f\u0370-\u03ff⁄ぁ-ヿ一-鿿\u3099\u309a]+")
_ROMAN = range(0x2160, 0x2180)


@dataclass(frozen=True)
class Spoken:
    """A text as it is spoken.

    Attributes:
        text: the text, of characters that the front end reads.
        unread: characters that no rule read, in order.
    """

    text: str
    unread: str = ""


def clean(text: str, ruby: bool = False) -> str:
    """Return a text without markup and invisible characters, and in plain forms of characters.

    Args:
        text: text as written.
        ruby: take the readings of `<ruby>` rather than what stands below them.
    """
    text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    text = _RUBY.sub(lambda match: _read_ruby(match[1], ruby), text)
    text = _TAG.sub("", _BREAK.sub(" ", _EVENT.sub("", text)))
    text = "".join(map(_seen, _SPACES.sub(_space, _UNSEEN.sub("", text))))
    text = unicodedata.normalize("NFC", text)
    text = _APOSTROPHE.sub("'", text)
    return _AREA.sub(r"\1\2", plain_forms(text))


def _read_ruby(inside: str, ruby: bool) -> str:
    if ruby:
        return "".join(_RUBY_TEXT.findall(inside)) or inside
    return _RUBY_ASIDE.sub("", inside)


def _space(match: re.Match[str]) -> str:
    """Return a space, and a line break or tab as one that is a pause."""
    return "\u3000" if match[0] in "\t\n\r\v\f\u0085\u2028\u2029\u3000" else " "


def _seen(char: str) -> str:
    """Return a character that people see; nothing of others."""
    return "" if unicodedata.category(char) in ("Cf", "Cc") else char


def plain_forms(text: str) -> str:
    """Return full-width, half-width, circled and other forms as plain characters (NFKC).

    Powers become ^2, fractions 1/2, and circled and Roman numbers digits. The signs that NFKC would
    take apart into a space and a mark stay.
    """
    text = text.translate(_PLAIN)
    pieces = [_plain_form(text, index) for index in range(len(text))]
    return unicodedata.normalize("NFC", "".join(pieces)).translate(_PLAIN)


def _plain_form(text: str, index: int) -> str:
    char = text[index]
    if char < "\u00a0" or char in "…\u3000":
        return char
    if char in _POWERS:
        return _POWERS[char]
    before = text[index - 1 : index]
    if char in _VOICED and _KANA.match(before):
        return _VOICED[char]
    if "CIRCLED" in (name := unicodedata.name(char, "")) or ord(char) in _ROMAN:
        return _numeral(char, before)
    plain = unicodedata.normalize("NFKC", char)
    if "FRACTION" in name and "⁄" in plain:
        return f"{' ' if before.isdecimal() else ''}{plain.replace('⁄', '/')}"
    if plain[:1] == " " or unicodedata.combining(plain[:1] or "a"):
        return char
    if len(plain) > 1 and not _KNOWN.fullmatch(plain):
        return char  # one character that nothing reads is not to become several
    return plain


def _numeral(char: str, before: str) -> str:
    """Return the digits of a circled or Roman number; a comma parts it from one before it."""
    plain = unicodedata.normalize("NFKC", char)
    number = unicodedata.numeric(char, None)
    if number is None or number != int(number):
        return plain
    parted = before != "" and (before.isdecimal() or unicodedata.numeric(before, None) is not None)
    return f"{',' if parted and not '一' <= before <= '龥' else ''}{int(number)}"


def said_signs(signs: Iterable[str]) -> re.Pattern[str]:
    """Match signs beside a letter or a number; by themselves only letters are spoken."""
    sign = f"[{re.escape(''.join(signs))}]"
    beside = rf"(?<=[\w)]){sign}|(?<=\w\+)\+|(?<=[\w)]\s){sign}|{sign}(?=\s*[\w(])"
    letters = "".join(filter(str.isalpha, signs))
    return re.compile(f"{beside}|[{letters}]" if letters else beside)


def keep(text: str, readable: re.Pattern[str], silent: Iterable[str] = " ") -> Spoken:
    """Keep what a front end reads.

    Args:
        text: text after all rules.
        readable: matches one character that is read.
        silent: characters that have no sound and are not missed.
    """
    quiet = frozenset(silent)
    kept = []
    unread = []
    for char in text:
        if readable.match(char):
            kept.append(char)
        elif char not in quiet and not unicodedata.combining(char):
            unread.append(char)
    return Spoken("".join(kept), "".join(unread))


def leave_out(text: str, not_read: re.Pattern[str]) -> Spoken:
    """Leave out what a pattern finds; all of that but its spaces is unread."""
    found = "".join(not_read.findall(text))
    return Spoken(not_read.sub("", text), "".join(found.split()))
