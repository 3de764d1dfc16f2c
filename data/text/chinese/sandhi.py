"""Tone sandhi of Mandarin: how neighbouring words change a word's tones.

Neighbouring words are first joined where they form one sandhi domain (不想, 走一走, 老李养); then
each joined word gets the tones of 不 and 一, its neutral tones, and the change of third tones
before third tones, in that order. Tones are 1 to 4, and 5 for the neutral tone.
"""

import functools
from collections.abc import Callable
from importlib.resources import files
from typing import NamedTuple

from data.text.chinese.words import Syllable, read_word, search_pieces


class Word(NamedTuple):
    """A word, jieba's tag of its part of speech, and how it is read before sandhi."""

    text: str
    tag: str
    syllables: list[Syllable]

    @property
    def tones(self) -> list[int]:
        """Return the tones of its characters."""
        return [tone for _, tone in self.syllables]


Reader = Callable[[list[Word]], list[Syllable]]
"""Reads words that are joined into one."""

_PARTICLES = frozenset("吧呢啊呐噻嘛吖嗨哦哒额滴哩哟喽啰耶喔诶")
_STRUCTURAL = frozenset("的地得")
_DIRECTION_FIRST = frozenset("上下进出回过起开")
_BEFORE_GE = frozenset("几有两半多各整每做是")
_FULL = "full_words.txt"
_NEUTRAL = "neutral_words.txt"


@functools.cache
def _words_in(file: str) -> frozenset[str]:
    lines = (files("data.text.chinese") / file).read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def in_list(file: str, word: str) -> bool:
    """Tell whether one of our lists holds a word."""
    return word in _words_in(file)


def tones(tagged: list[tuple[str, str]]) -> list[tuple[str, list[int]]]:
    """Join the words of a clause into domains of sandhi, and return these with their tones.

    Args:
        tagged: words of the clause, and their tags.

    Returns:
        Pairs of a joined word and the tones of its characters, in order.
    """
    words = [Word(word, tag, read_word(word)) for word, tag in tagged]
    return [(word.text, _word_tones(word)) for word in join(words, _read_as_one)]


def _read_as_one(words: list[Word]) -> list[Syllable]:
    """Read a joined word as a dictionary does: published models were trained so."""
    return read_word("".join(word.text for word in words))


def _word_tones(word: Word) -> list[int]:
    text, tag, _ = word
    return third(text, _neutral(text, tag, _yi(text, bu(text, word.tones))))


def join(words: list[Word], read: Reader) -> list[Word]:
    """Join words into domains of sandhi.

    Args:
        words: words of a clause.
        read: how joined words are read.
    """

    def one(joined: list[Word], tag: str) -> Word:
        return Word("".join(word.text for word in joined), tag, read(joined))

    words = _join_bu(words, one)
    words = _join_around_yi(words, one)
    words = _join_yi(words, one)
    words = _join_repeated(words, one)
    words = _join_third(words, one, _third_throughout)
    words = _join_third(words, one, _third_at_border)
    return _join_er(words, one)


One = Callable[[list[Word], str], Word]
"""Makes one word, with a tag, of several."""


def _third_throughout(before: Word, after: Word) -> bool:
    return set(before.tones + after.tones) == {3}


def _third_at_border(before: Word, after: Word) -> bool:
    return before.tones[-1] == after.tones[0] == 3


def _join_bu(words: list[Word], one: One) -> list[Word]:
    """Join 不 想 -> 不想, with the tag of 想."""
    joined: list[Word] = []
    for word in words:
        if joined and joined[-1].text == "不":
            joined[-1] = one([joined[-1], word], word.tag)
        else:
            joined.append(word)
    return joined


def _join_yi(words: list[Word], one: One) -> list[Word]:
    """Join 一 桌子 -> 一桌子, with the tag of 一: published models were trained so."""
    joined: list[Word] = []
    for word in words:
        if joined and joined[-1].text == "一":
            joined[-1] = one([joined[-1], word], joined[-1].tag)
        else:
            joined.append(word)
    return joined


def _join_around_yi(words: list[Word], one: One) -> list[Word]:
    """Join 走 一 走 -> 走一走."""
    joined: list[Word] = []
    for word in words:
        around = len(joined) > 1 and joined[-1].text == "一" and joined[-2][:2] == word[:2]
        if around and word.tag == "v":
            joined[-2:] = [one([*joined[-2:], word], word.tag)]
        else:
            joined.append(word)
    return joined


def _join_repeated(words: list[Word], one: One) -> list[Word]:
    """Join 商量 商量 -> 商量商量."""
    joined: list[Word] = []
    for word in words:
        if joined and joined[-1].text == word.text:
            joined[-1] = one([joined[-1], word], joined[-1].tag)
        else:
            joined.append(word)
    return joined


def _join_third(words: list[Word], one: One, belong: Callable[[Word, Word], bool]) -> list[Word]:
    """Join a word with the one before it where both belong together.

    At most two words and three characters are joined.
    """
    joined: list[Word] = []
    just_joined = False
    for index, word in enumerate(words):
        before = words[index - 1] if index else Word("", "", [])
        doubled = len(before.text) == 2 and before.text[0] == before.text[1]
        short = joined and len(joined[-1].text) + len(word.text) <= 3
        if index and not just_joined and short and not doubled and belong(before, word):
            joined[-1] = one([joined[-1], word], joined[-1].tag)
            just_joined = True
        else:
            joined.append(word)
            just_joined = False
    return joined


def _join_er(words: list[Word], one: One) -> list[Word]:
    """Join 门外 儿 -> 门外儿."""
    joined: list[Word] = []
    for word in words:
        if word.text == "儿" and joined:
            joined[-1] = one([joined[-1], word], joined[-1].tag)
        else:
            joined.append(word)
    return joined


def bu(word: str, tone: list[int]) -> list[int]:
    """Give 不 its tone: neutral inside three characters (好不好, 差不多), second before a 4th."""
    if len(word) == 3 and word[1] == "不":
        return [tone[0], 5, tone[2]]
    return [
        2 if char == "不" and tone[index + 1 : index + 2] == [4] else tone[index]
        for index, char in enumerate(word)
    ]


def _yi(word: str, tone: list[int]) -> list[int]:
    """Give 一 its tone.

    It keeps its own in numbers, is neutral in 走一走, second before a fourth tone, and fourth
    before others.
    """
    if "一" not in word or all(char.isnumeric() for char in word):
        return tone
    if len(word) == 3 and word[1] == "一" and word[0] == word[2]:
        return [tone[0], 5, tone[2]]
    if word.startswith("第一"):
        return [tone[0], 1, *tone[2:]]
    changed = list(tone)
    for index, char in enumerate(word[:-1]):
        if char == "一":
            changed[index] = 2 if tone[index + 1] == 4 else 4
    return changed


def _neutral(word: str, tag: str, tone: list[int]) -> list[int]:
    tone = list(tone)
    if tag[0] in "nva" and word not in _words_in(_FULL):
        for index in range(1, len(word)):
            if word[index] == word[index - 1]:
                tone[index] = 5
    if ends_neutral(word, tag):
        tone[-1] = 5
    elif (ge := measure_ge(word)) is not None:
        tone[ge] = 5
    elif neutral_by_convention(word):
        tone[-1] = 5
    end = 0
    for part in halves(word):
        end += len(part)
        if neutral_by_convention(part):
            tone[end - 1] = 5
    return tone


def ends_neutral(word: str, tag: str) -> bool:
    """Tell whether a word's last character is neutral.

    These are particles, 的地得, 们 and 子 of nouns and pronouns, 上下里 of places, and 来去 after a
    direction.
    """
    last, before = word[-1], word[-2:-1]
    if last in _PARTICLES or last in _STRUCTURAL:
        return True
    return before != "" and (
        (last in "们子" and tag in {"r", "n"} and word not in _words_in(_FULL))
        or (last in "上下里" and tag in {"s", "l", "f"})
        or (last in "来去" and before in _DIRECTION_FIRST)
    )


def measure_ge(word: str) -> int | None:
    """Return where 个 is a measure word: by itself, or behind a number or such words as 几."""
    index = word.find("个")
    if word == "个":
        return index
    counted = index > 0 and (word[index - 1].isnumeric() or word[index - 1] in _BEFORE_GE)
    return index if counted else None


def neutral_by_convention(word: str) -> bool:
    """Tell whether our list has a word, or its end, with a neutral last tone."""
    return word in _words_in(_NEUTRAL) or word[-2:] in _words_in(_NEUTRAL)


def halves(word: str) -> list[str]:
    """Cut a word in two, its shortest word apart from the rest; a simple word stays whole.

    老李养 -> 老李 养. A shortest word that is inside counts as the end (不怎么样 -> 不怎 怎么):
    published models were trained so.
    """
    shortest = min(search_pieces(word), key=len)
    if shortest == word:
        return [word]
    if word.startswith(shortest):
        return [shortest, word[len(shortest) :]]
    return [word[: -len(shortest)], shortest]


def third(word: str, tone: list[int]) -> list[int]:
    """Make the first of two third tones second; of three, it depends on how the word is built."""
    if len(word) == 2:
        return _third_pair(tone)
    if len(word) == 4:
        return _third_pair(tone[:2]) + _third_pair(tone[2:])
    if len(word) != 3:
        return tone
    parts = halves(word)
    if len(parts) == 1:
        return tone
    if tone == [3, 3, 3]:
        return [2, 2, 3] if len(parts[0]) == 2 else [3, 2, 3]
    cut = len(parts[0])
    first = tone[:cut]
    second = tone[cut:]
    if first[-1] == second[0] == 3 and second not in ([3], [3, 3]):
        first = [*first[:-1], 2]
    return _third_pair(first) + _third_pair(second)


def _third_pair(tone: list[int]) -> list[int]:
    return [2, 3] if tone == [3, 3] else tone
