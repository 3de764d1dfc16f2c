"""A user's own readings, `data.text.readings`: a YAML file of words and how each is read.

    ZH:
      单田芳: shan4 tian2 fang1
    JP:
      百鬼: ナキリ
    EN:
      Nguyen: W IH1 N

Chinese takes pinyin with its tones (5 for the neutral one), Japanese kana, English ARPAbet with its
stress. Any language takes phones of the symbol set with their tones: `/ n:3 i:3`.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from data.files import read_file
from data.text.front_end import FrontEnd, FrontEndError, Phonemes, share_out, validate
from data.text.languages import LANGUAGES, find
from data.text.symbols import unknown_phones

Phone = tuple[str, int]
Table = dict[str, dict[str, str]]
"""Language -> word -> its reading."""


def load_readings(uri: str | None, words: Table) -> Table:
    """Return the readings of a configuration, all of which can be read.

    Args:
        uri: a YAML file, `data.text.readings`; its words replace others.
        words: `data.text.words`.

    Raises:
        ValueError: there is no such file, or something in it is wrong; names the line, or the key.
    """
    for language, own in words.items():
        for word, reading in own.items():
            try:
                phones_of(reading, word, language)
            except ValueError as error:
                raise ValueError(f"data.text.words.{language}.{word}: {error}") from error
    table = {language: dict(own) for language, own in words.items()}
    for language, own in (_read(uri) if uri else {}).items():
        table.setdefault(language, {}).update(own)
    return table


def _read(uri: str) -> Table:
    try:
        root = yaml.compose(read_file(uri).decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ValueError(f"there is no file {uri}: set data.text.readings") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri} is not UTF-8 ({error.reason}): save the file as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{uri}:{line}: no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{uri}: no YAML: {error}") from error

    table: Table = {}
    for language, words in _entries(uri, root, "a table of language: words"):
        own = table.setdefault(language.value, {})
        for word, reading in _entries(uri, words, "a table of word: reading"):
            own[word.value] = _reading(uri, language, word, reading)
    return table


def _entries(uri: str, node: yaml.Node | None, wanted: str) -> list[tuple[Any, Any]]:
    """Return keys and values of a table, as nodes."""
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{_place(uri, node)}: give {wanted}")
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or not key.value.strip():
            raise ValueError(f"{_place(uri, key)}: give {wanted}")
        first = seen.setdefault(key.value, key.start_mark.line + 1)
        if first != key.start_mark.line + 1:
            raise ValueError(f"{_place(uri, key)}: {key.value} stands in line {first} already")
    return node.value


def _reading(uri: str, language: yaml.Node, word: yaml.Node, reading: yaml.Node) -> str:
    if not isinstance(reading, yaml.ScalarNode):
        raise ValueError(f"{_place(uri, reading)}: give the reading of {word.value} as one text")
    if language.value not in LANGUAGES:
        choice = ", ".join(LANGUAGES)
        raise ValueError(f"{_place(uri, language)}: no language {language.value!r}: use {choice}")
    try:
        phones_of(reading.value, word.value, language.value)
    except ValueError as error:
        raise ValueError(f"{_place(uri, reading)}: {error}") from error
    return reading.value


def _place(uri: str, node: yaml.Node) -> str:
    return f"{uri}:{node.start_mark.line + 1}"


def phones_of(reading: str, word: str, language: str) -> list[Phone]:
    """Return the phones of a reading, with their tones.

    Raises:
        ValueError: it is none; says what is wrong with it, and what would be right.
    """
    own = find(language)
    if not any(map(str.isalnum, word)):
        raise ValueError(f"{word!r} has no letter")
    if not reading.startswith("/") and not own.readings:
        raise ValueError(f"give the phones of {word} as in `/ a:1 b:0`")
    if reading.startswith("/"):
        phones = [_phone(written) for written in reading[1:].split()]
    else:
        module, name = own.readings.split(":")
        phones = getattr(importlib.import_module(module), name)(reading)
    if not phones:
        raise ValueError(f"the reading of {word} is empty")
    if unknown := unknown_phones(phone for phone, _ in phones):
        raise ValueError(f"{reading!r} of {word} has phones that there are not: {unknown}")
    if any(not 0 <= tone < own.tones for _, tone in phones):
        raise ValueError(f"{reading!r} of {word}: {language} has the tones 0 to {own.tones - 1}")
    return phones


def _phone(written: str) -> Phone:
    phone, colon, tone = written.rpartition(":")
    if colon and not tone.isdecimal():
        raise ValueError(f"{written!r}: give a phone and its tone, as in `a:1`")
    return (phone, int(tone)) if colon else (written, 0)


class WithReadings:
    """A front end that reads the user's words as the user says, and the rest as another one does.

    Args:
        front_end: reads the rest.
        words: word -> reading, of its language.
        tokens: cuts a word into BERT's tokens; None if `front_end` gives none.
    """

    def __init__(self, front_end: FrontEnd, words: Mapping[str, str], tokens: Any) -> None:
        self.front_end = front_end
        self.language = front_end.language
        self.version = front_end.version
        self._tokens = tokens
        self._spaced = find(self.language).joiner == " "
        self._phones = {
            self._folded(word): phones_of(reading, word, self.language)
            for word, reading in words.items()
        }
        listed = "|".join(map(re.escape, sorted(self._phones, key=len, reverse=True)))
        self._pattern = re.compile(
            rf"(?<!\w)(?:{listed})(?!\w)" if self._spaced else listed,
            re.IGNORECASE if self._spaced else 0,
        )
        content = json.dumps(sorted(words.items()))
        self._digest = hashlib.sha256(content.encode()).hexdigest()[:16]

    def data_hash(self) -> str:
        """Return the other front end's hash, with one of the readings."""
        return f"{self.front_end.data_hash()}-readings-{self._digest}"

    def __call__(self, text: str) -> Phonemes:
        """Read a text; see `FrontEnd`."""
        parts = list(self._parts(text))
        if len(parts) == 1 and isinstance(parts[0], str):
            return self.front_end(text)
        read = [self._plain(part) if isinstance(part, str) else self._word(*part) for part in parts]
        read = [part for part in read if part.word2ph]
        tokens = None if self._tokens is None else [t for p in read for t in p.bert_tokens or ()]
        joiner = find(self.language).joiner
        joined = Phonemes(
            norm_text=joiner.join(part.norm_text for part in read),
            phones=["_", *(phone for part in read for phone in part.phones), "_"],
            tones=[0, *(tone for part in read for tone in part.tones), 0],
            word2ph=[1, *(count for part in read for count in part.word2ph), 1],
            bert_text=joiner.join(part.bert_text for part in read),
            bert_tokens=tokens,
            unread="".join(part.unread for part in read),
        )
        return validate(joined, self.language, text)

    def _folded(self, word: str) -> str:
        return word.casefold() if self._spaced else word

    def _parts(self, text: str) -> Iterator[str | tuple[str, list[Phone]]]:
        """Cut a text at the user's words; these come with their phones."""
        start = 0
        for match in self._pattern.finditer(text):
            if before := text[start : match.start()]:
                yield before
            yield match[0], self._phones[self._folded(match[0])]
            start = match.end()
        if start < len(text):
            yield text[start:]

    def _plain(self, text: str) -> Phonemes:
        """Read what stands between the user's words, without the silence at its ends."""
        try:
            read = self.front_end(text)
        except FrontEndError as error:
            if error.reason != "empty_text":
                raise
            return Phonemes("", [], [], [], "", [], error.unread)
        return Phonemes(
            read.norm_text,
            read.phones[1:-1],
            read.tones[1:-1],
            read.word2ph[1:-1],
            read.bert_text,
            read.bert_tokens,
            read.unread,
        )

    def _word(self, word: str, phones: list[Phone]) -> Phonemes:
        tokens = (self._tokens or list)(word)
        return Phonemes(
            norm_text=word,
            phones=[phone for phone, _ in phones],
            tones=[tone for _, tone in phones],
            word2ph=share_out(len(phones), len(tokens)),
            bert_text=word,
            bert_tokens=tokens,
        )
