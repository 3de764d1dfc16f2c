"""Japanese: Open JTalk finds words, readings and accents, which become phones and tones.

Kana become phones, and the accents one tone per mora.

Two builds of Open JTalk install the same import package, and read with different dictionaries:
  plus    pyopenjtalk-plus, whose wheel holds a modified dictionary;
  strict  pyopenjtalk with the NAIST dictionary that OPEN_JTALK_DICT_DIR names: what published
  models were trained with.
The caller chooses; nothing falls back from one to the other.
"""

import contextlib
import functools
import io
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data.text.english.words import DICTIONARY_FILE, words_in
from data.text.front_end import (
    OURS,
    FrontEndError,
    Phonemes,
    hash_files,
    is_ours,
    share_out,
    validate,
)
from data.text.japanese.corrections import corrected
from data.text.japanese.kana import moras
from data.text.japanese.letters import is_names, kana_of, narrow
from data.text.japanese.numbers import spell_numbers
from data.text.japanese.spoken import speak
from data.text.spoken.cleaning import leave_out
from data.text.symbols import PUNCTUATION

_PACKAGES = {"plus": "pyopenjtalk-plus", "strict": "pyopenjtalk"}
_HOW_TO_INSTALL = {
    "plus": "pip uninstall pyopenjtalk; pip install '.[jp-plus]', with OPEN_JTALK_DICT_DIR unset",
    "strict": "pip uninstall pyopenjtalk-plus; install the dictionary "
    "(Debian: open-jtalk-mecab-naist-jdic), set OPEN_JTALK_DICT_DIR to its folder "
    "(/var/lib/mecab/dic/open-jtalk/naist-jdic), pip install '.[jp-strict]'",
}

_MOST_CHARACTERS = 8192 // 3 - 1
"""Open JTalk writes into 8192 bytes, three per character, without asking whether they suffice."""

_PUNCTUATION_OF = str.maketrans(
    {
        **dict.fromkeys("、・，", ","),
        **dict.fromkeys("。．", "."),
        **dict.fromkeys('「」『』“”‘’"()[]{}<>《》【】〈〉〔〕', "'"),
        **dict.fromkeys("—―–−~", "-"),
    }
)
_NOT_READ = re.compile(rf"[^ぁ-ゖゝゞァ-ヺーヽヾ々〆〇一-鿿{re.escape(''.join(PUNCTUATION))}]+")


_LETTERS = re.compile("[Ａ-Ｚａ-ｚ]+")


@functools.cache
def _open_jtalk(engine: str) -> Any:
    """Return the module of an engine, after checking that it is this engine that is installed."""
    if problem := _problem(engine):
        raise ValueError(
            f"the {engine!r} engine for JP cannot be used: {problem}. "
            f"To install it: {_HOW_TO_INSTALL[engine]}"
        )
    # plus prints an advertisement for onnxruntime
    with contextlib.redirect_stdout(io.StringIO()):
        import pyopenjtalk
    return pyopenjtalk


def _problem(engine: str) -> str:
    """Return what keeps an engine from being used, or nothing."""
    own = _PACKAGES[engine]
    others = [package for name, package in _PACKAGES.items() if name != engine]
    dictionary = os.environ.get("OPEN_JTALK_DICT_DIR")
    if not _installed(own):
        return f"{own} is not installed"
    if any(map(_installed, others)):
        return f"{own} and {', '.join(others)} are both installed and overwrite each other"
    if engine == "plus" and dictionary:
        return f"OPEN_JTALK_DICT_DIR={dictionary} replaces its dictionary: unset it"
    if engine == "strict" and not (dictionary and (Path(dictionary) / "sys.dic").is_file()):
        return f"OPEN_JTALK_DICT_DIR={dictionary or ''} names no folder with a sys.dic"
    return ""


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def normalise(text: str) -> str:
    """Spell numbers out in kanji, and keep only kana, kanji and the symbol set's punctuation."""
    return _NOT_READ.sub("", _written_out(text))


def _written_out(text: str) -> str:
    return spell_numbers(unicodedata.normalize("NFKC", text)).translate(_PUNCTUATION_OF)


@dataclass(frozen=True)
class _Word:
    """A word as BERT reads it, its phones with their tones, and whether a reading is known."""

    text: str
    phones: list[str]
    tones: list[int]
    known: bool = True


def _accent_phrases(features: Iterable[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    """Group words that share an accent.

    A phrase ends before a word that does not chain, and at a pause.
    """
    phrase: list[dict[str, Any]] = []
    for feature in features:
        pause = not moras(feature["pron"])
        if phrase and (pause or feature["chain_flag"] != 1 or not moras(phrase[-1]["pron"])):
            yield phrase
            phrase = []
        phrase.append(feature)
    if phrase:
        yield phrase


def _is_high(mora: int, accent: int) -> bool:
    """Tell whether a mora (from 1) of an accent phrase is high, by the rules of Tokyo.

    The pitch rises after the first mora, unless that is the accented one, and falls after the
    accented one.
    """
    if accent == 1:
        return mora == 1
    return mora >= 2 and (accent == 0 or mora <= accent)


def _word_tones(high: list[bool]) -> list[int]:
    """Return the tone of each mora of a word: 1 where it is higher than elsewhere in the word.

    A word that is high throughout gets 0, as one that is low throughout: published models were
    trained so.
    """
    return [int(mora and not all(high)) for mora in high]


def _read_phrase(phrase: list[dict[str, Any]], last_phone: str = "") -> Iterable[_Word]:
    """Read the words of an accent phrase, in order.

    Args:
        phrase: its words.
        last_phone: what a long mark at its beginning makes longer; empty: it is a pause.
    """
    accent = phrase[0]["acc"]
    said = 0  # moras of the phrase
    for feature in phrase:
        surface = unicodedata.normalize("NFKC", feature["string"]).translate(_PUNCTUATION_OF)
        word_moras = moras(feature["pron"])
        high = [_is_high(said + mora, accent) for mora in range(1, len(word_moras) + 1)]
        said += len(word_moras)

        phones: list[str] = []
        tones: list[int] = []
        for mora_phones, tone in zip(word_moras, _word_tones(high), strict=True):
            if mora_phones == ["ー"]:
                mora_phones = [last_phone] if last_phone else []
            phones += mora_phones
            tones += [tone] * len(mora_phones)
            last_phone = phones[-1] if phones else ""

        known = bool(phones) or set(surface) <= set(PUNCTUATION)
        if not known:
            surface = ","  # a pause, for BERT as well
        if not phones:
            phones = list(surface)
            tones = [0] * len(surface)
        yield _Word(surface, phones, tones, known)


def _words_as_reference(features: list[dict[str, Any]]) -> Iterable[_Word]:
    for phrase in _accent_phrases(features):
        yield from _read_phrase(phrase)


def _words_as_spoken(features: list[dict[str, Any]]) -> Iterable[_Word]:
    """Read words as they are spoken; a long mark makes longer what is before it in any phrase."""
    last_phone = ""
    for phrase in _accent_phrases(corrected(features)):
        for word in _read_phrase(phrase, last_phone):
            last_phone = word.phones[-1] if word.phones[-1] not in PUNCTUATION else ""
            yield word


def _unknown(features: list[dict[str, Any]], words: list[_Word]) -> Iterable[str]:
    """Yield the characters that Open JTalk knows no reading of."""
    for feature, word in zip(features, words, strict=True):
        if not word.known:
            yield unicodedata.normalize("NFKC", feature["string"])


class JapaneseFrontEnd:
    """The front end of JP: a character takes its share of its word's phones."""

    language = "JP"

    def __init__(self, engine: str = "plus", normaliser: str = OURS):
        """Check that the engine is there.

        Args:
            engine: "plus" or "strict", see the module.
            normaliser: one of NORMALISERS.

        Raises:
            ValueError: an unknown engine, or one that cannot be used; says how to install it.
        """
        if engine not in _PACKAGES:
            raise ValueError(f"no JP engine {engine!r}: use one of {', '.join(_PACKAGES)}")
        self.engine = engine
        self.normaliser = normaliser
        self.version = f"jp-{2 if is_ours(normaliser) else 1}-{engine}"
        self._open_jtalk = _open_jtalk(engine)
        # plus guesses 何 with a network where onnxruntime happens to be installed; the same text
        # must read the same everywhere
        options = {"predict_nani": False} if engine == "plus" else {}
        self._run_frontend = functools.partial(self._open_jtalk.run_frontend, **options)

    def __call__(self, text: str) -> Phonemes:
        """Read a text; see `FrontEnd`."""
        ours = self.normaliser == OURS
        spoken = speak(text) if ours else leave_out(_written_out(text), _NOT_READ)
        norm_text = self._with_words(spoken.text) if ours else spoken.text
        if len(norm_text) > _MOST_CHARACTERS:
            detail = f"{len(norm_text)} characters, but Open JTalk reads {_MOST_CHARACTERS}"
            raise FrontEndError("text_too_long", text, detail)
        features = self._run_frontend(norm_text) if norm_text else []
        words = list(_words_as_spoken(features) if ours else _words_as_reference(features))
        bert_text = "".join(word.text for word in words)
        shares = [n for word in words for n in share_out(len(word.phones), len(word.text))]
        result = Phonemes(
            norm_text=norm_text,
            phones=["_", *(phone for word in words for phone in word.phones), "_"],
            tones=[0, *(tone for word in words for tone in word.tones), 0],
            word2ph=[1, *shares, 1],
            bert_text=bert_text,
            bert_tokens=list(bert_text),
            unread=spoken.unread + "".join(_unknown(features, words)),
        )
        return validate(result, self.language, text)

    def _with_words(self, text: str) -> str:
        """Write words in Latin letters in kana, as Open JTalk's dictionary or English has them."""
        return _LETTERS.sub(lambda match: self._word(match[0]), text).replace(" ", "")

    def _word(self, letters: str) -> str:
        features = self._run_frontend(letters)
        if len(features) == 1 and features[0]["pos"] not in ("フィラー", "記号"):
            reading = features[0]["pron"].replace("’", "")
            # among other words it may not be found; letters by themselves always are
            return letters if is_names(narrow(letters), reading) else reading
        return "".join(map(kana_of, words_in(narrow(letters))))

    def data_hash(self) -> str:
        """Return a hash of the dictionary, and the versions of all that decides its readings."""
        folder = self._open_jtalk.OPEN_JTALK_DICT_DIR
        folder = Path(folder.decode() if isinstance(folder, bytes) else folder)
        ours = self.normaliser == OURS  # English words become kana
        packages = [_PACKAGES[self.engine]]
        if self.engine == "plus":
            packages.append("sudachidict_core")
        versions = "-".join(f"{package}-{version(package)}" for package in packages)
        files = [folder / "sys.dic", folder / "matrix.bin"]
        return f"{versions}-{hash_files(files + ([DICTIONARY_FILE] if ours else []))}"
