"""English short forms in words: titles, abbreviations, initials, Roman numbers and capitals."""

import re

from data.text.english.numbers import ordinal
from data.text.english.words import is_spelled

TITLES = {
    "Dr": "Doctor",
    "Mr": "Mister",
    "Mrs": "Missus",
    "Ms": "Ms",
    "Prof": "Professor",
    "Gen": "General",
    "Sgt": "Sergeant",
    "Capt": "Captain",
    "Lt": "Lieutenant",
    "Col": "Colonel",
    "Rev": "Reverend",
    "Hon": "Honorable",
    "Sen": "Senator",
    "Rep": "Representative",
    "Gov": "Governor",
    "Pres": "President",
    "St": "Saint",
    "Mt": "Mount",
    "Ft": "Fort",
    "Messrs": "Messieurs",
    "Cmdr": "Commander",
    "Maj": "Major",
    "Cpl": "Corporal",
}
SHORT = {
    "st": "street",
    "ave": "avenue",
    "blvd": "boulevard",
    "rd": "road",
    "dr": "drive",
    "jr": "junior",
    "sr": "senior",
    "vs": "versus",
    "etc": "et cetera",
    "inc": "incorporated",
    "ltd": "limited",
    "co": "company",
    "corp": "corporation",
    "dept": "department",
    "approx": "approximately",
    "est": "established",
    "vol": "volume",
    "fig": "figure",
    "ext": "extension",
    "apt": "apartment",
    "bros": "brothers",
    "assn": "association",
    "jan": "January",
    "feb": "February",
    "mar": "March",
    "apr": "April",
    "aug": "August",
    "sept": "September",
    "sep": "September",
    "oct": "October",
    "nov": "November",
    "dec": "December",
    "mon": "Monday",
    "tue": "Tuesday",
    "tues": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "thurs": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
    "govt": "government",
    "min": "minutes",
    "max": "maximum",
    "avg": "average",
    "misc": "miscellaneous",
}
# words by themselves, so that only a stop makes them short forms
_WORDS = frozenset(("mar", "mon", "sat", "sun", "wed", "fig", "min", "max", "est", "ext", "dec"))
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50}
NUMBERED = (
    "Chapter|Part|Act|Volume|Book|Section|Phase|Type|Scene|Level|Stage|Round|War|Episode|Article"
)
KINGS = (
    "Henry|Louis|Elizabeth|George|Edward|Charles|Richard|James|William|John|Paul|Pius|Philip|"
    "Napoleon|Francis|Frederick|Alexander|Peter|Ivan|Nicholas|Benedict|Mary|Victoria|Catherine"
)


def title(match: re.Match[str]) -> str:
    """Write the title before a name out: Dr. -> Doctor."""
    return TITLES[match[1]]


def short(match: re.Match[str]) -> str:
    """Write a short form out; a stop that also ends the sentence stays."""
    word, stop = match[1], match[2]
    rest = match.string[match.end() :]
    doubtful = word.lower() in _WORDS and not (word[0].isupper() and re.match(r",? \d|,", rest))
    if doubtful or (not stop and word.lower() not in ("vs", "etc", "jr", "sr")):
        return match[0]
    ends = stop and (not rest.strip() or re.match(r'["\')\]]*\s+[A-Z]', rest))
    return SHORT[word.lower()] + ("." if ends and word.lower() != "vs" else "")


def initials(match: re.Match[str]) -> str:
    """Read U.S. and J. K. as letters; a stop that ends the text stays."""
    letters = " ".join(re.findall("[A-Za-z]", match[0]))
    return letters + ("." if not match.string[match.end() :].strip() else "")


def roman(match: re.Match[str]) -> str:
    """Read Roman numbers: Chapter IV -> Chapter 4, Henry VIII -> Henry the 8th."""
    values = [_ROMAN[letter] for letter in match[2]]
    number = sum(
        -value if value < max(values[index:]) else value for index, value in enumerate(values)
    )
    king = re.fullmatch(KINGS, match[1]) is not None
    return f"{match[1]} {f'the {ordinal(number)}' if king else number}"


def capitals(match: re.Match[str]) -> str:
    """Spell capitals that are no word, letter by letter."""
    word = match[1]
    if not is_spelled(word):
        return match[0]
    return " ".join("ay" if char == "A" else char for char in word) + ("'s" if match[2] else "")
