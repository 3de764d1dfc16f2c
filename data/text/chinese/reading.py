"""How a clause of Mandarin is read, by words, parts of speech and neighbours.

pypinyin's dictionary reads the words; `readings.txt` says where a character has another reading,
by what stands around it. What follows is the tone sandhi of `data.text.chinese.sandhi`, with its
own rules of 一, of neutral tones and of doubled words.
"""

import functools
import re
from importlib.resources import files

from data.text.chinese import sandhi
from data.text.chinese.sandhi import Word, in_list
from data.text.chinese.words import Syllable, is_phrase, read_word, tagger

# doubled words that are said with a neutral tone although they are no verbs
_KIN = frozenset("妈爸哥姐弟妹爷奶叔伯舅姑姨婶嫂公婆姥爹娘太宝娃星猩蛐蝈饽")
_FULL_ZI = re.compile(
    r"[孔孟老庄荀墨曾男女王弟君才天太皇学游浪孝电原分离粒质中量因核光黑莲瓜石棋]子$"
)
_PLACES = {"上": ("shang", 5), "里": ("li", 5)}
_DIGITS = "零一二三四五六七八九十幺"


def read_clause(clause: str) -> list[tuple[str, list[Syllable]]]:
    """Return the words of a clause, joined by sandhi, with the syllables that are spoken."""
    return [(word.text, _spoken(word, clause)) for word in _joined(clause)]


def before_sandhi(clause: str) -> list[Syllable]:
    """Return the syllables of a clause as they are without their neighbours' influence."""
    return [syllable for word in _words(clause) for syllable in word.syllables]


def _joined(clause: str) -> list[Word]:
    def together(words: list[Word]) -> list[Syllable]:
        return [syllable for word in words for syllable in word.syllables]

    return sandhi.join(_words(clause), together)


def _words(clause: str) -> list[Word]:
    """Return the words of a clause as they are read before sandhi."""
    given = _given(clause)
    words = []
    start = 0
    for pair in tagger().lcut(clause):
        own = [
            given.get(start + index) or syllable
            for index, syllable in enumerate(_word(pair.word, pair.flag, clause, start))
        ]
        words.append(Word(pair.word, pair.flag, own))
        start += len(pair.word)
    return words


def _word(word: str, tag: str, clause: str, start: int) -> list[Syllable]:
    """Return a word's reading, with the particles 的, 地 and 得 where they are such."""
    read = list(read_word(word))
    if _FULL_ZI.search(word):
        read[-1] = ("zi", 3)
    if is_phrase(word):
        return read
    if tag == "f" and word in _PLACES and start:
        return [_PLACES[word]]
    if word == "地":
        return [("de", 5)] if tag == "uv" and start and clause[start - 1] not in "在种土" else read
    if word == "得":
        return [("de", 2 if re.match("[了到过]", clause[start + 1 :]) else 5)]
    # 睡得, 跑得快: no dictionary has them
    ends = re.search(r"(?<=.)得", word)
    if ends and read[ends.start()] == ("de", 2) and not is_phrase(word[: ends.end()][-2:]):
        read[ends.start()] = ("de", 5)
    if word.endswith("的") and len(word) > 1 and not is_phrase(word[-2:]):
        read[-1] = ("de", 5)
    return read


@functools.cache
def _rules() -> list[tuple[re.Pattern[str], str]]:
    """Return pattern and syllable of each line of readings.txt."""
    lines = (files("data.text.chinese") / "readings.txt").read_text(encoding="utf-8").splitlines()
    rules = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            syllable, pattern = line.split(maxsplit=1)
            rules.append((re.compile(pattern.strip()), syllable))
    return rules


def _given(clause: str) -> dict[int, Syllable]:
    """Return character -> syllable where a rule gives it; the first rule that does."""
    found: dict[int, Syllable] = {}
    for pattern, syllable in _rules():
        for match in pattern.finditer(clause):
            at = match.start("at")
            found.setdefault(at, (syllable[:-1], int(syllable[-1])))
    return found


def _spoken(word: Word, clause: str) -> list[Syllable]:
    text = word.text
    tones = sandhi.third(text, _neutral(word, _yi(text, sandhi.bu(text, word.tones))))
    return [(syllable, tone) for (syllable, _), tone in zip(word.syllables, tones, strict=True)]


def _yi(text: str, tones: list[int]) -> list[int]:
    """Give 一 its tone: its own among digits, before months and days and at the end of a word."""
    if "一" not in text:
        return tones
    if len(text) == 3 and text[1] == "一" and text[0] == text[2]:
        return [tones[0], 5, tones[2]]
    changed = list(tones)
    for index, char in enumerate(text[:-1]):
        if char == "一":
            changed[index] = _tone_of_yi(text[:index], text[index + 1 :], tones[index + 1])
    return changed


def _tone_of_yi(before: str, after: str, next_tone: int) -> int:
    counts = after[0] in _DIGITS or before[-1:] in tuple(_DIGITS)
    named = re.match("[月号楼]|点[零一二三四五六七八九十]|日$|等[奖功]", after)
    if before.endswith("第") or named or (counts and after[0] not in "百千万亿"):
        return 1
    # a neutral 个 was a fourth tone
    return 2 if next_tone == 4 or after[0] == "个" else 4


def _neutral(word: Word, tones: list[int]) -> list[int]:
    """Give a word its neutral tones."""
    text, tag, _ = word
    tones = list(tones)
    if len(text) == 2 and text[0] == text[1]:
        if tag == "v" or text[0] in _KIN:
            tones[1] = 5
    elif len(text) == 3 and text[0] == text[1] and tag == "v":
        tones[1] = 5  # 试试看
    elif len(text) == 4 and text[:2] == text[2:] and tag == "v":
        tones[1] = tones[3] = 5
    elif len(text) > 2 and text[-2] == text[-1] and text[-1] in _KIN:
        tones[-1] = 5
    idiom = len(text) > 3 and tag in {"i", "l"}
    if not idiom and _ends_neutral(text, tag):
        tones[-1] = 5
    elif (ge := sandhi.measure_ge(text)) is not None:
        tones[ge] = 5
    elif sandhi.neutral_by_convention(text) and not idiom:
        tones[-1] = 5
    end = 0
    for part in sandhi.halves(text):
        end += len(part)
        if in_list("neutral_words.txt", part):
            tones[end - 1] = 5
    return tones


def _ends_neutral(text: str, tag: str) -> bool:
    last, before = text[-1], text[-2:-1]
    if last in "的地得诶":
        return False  # by now these have the reading that they have; 诶 names the letter A
    if last == "子" and (_FULL_ZI.search(text) or not before):
        return False
    return sandhi.ends_neutral(text, tag)
