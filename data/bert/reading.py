"""From a text to what the text encoder reads, by the front ends and features of the shards."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.bert.features import BertFeatures
from data.bert.models import bert_features, front_end
from data.config import DataConfig
from data.text.front_end import FrontEnd, Phonemes, expand_word2ph, to_sequence
from data.text.marked import Part
from data.text.symbols import language_id


@dataclass(frozen=True)
class Reading:
    """A text of N tokens as T phones with their blanks.

    Attributes:
        x: phone ids, int64 [T].
        tone: tone ids, int64 [T].
        language: language ids, int64 [T]; 0 for blanks.
        spoken: language ids, int64 [T]; for blanks that of the part that they stand in.
        bert: features per token, float16 or float32 [N, width].
        token_index: token of each phone, int64 [T].
        unread: characters of the text that no rule read.
    """

    x: np.ndarray
    tone: np.ndarray
    language: np.ndarray
    spoken: np.ndarray
    bert: np.ndarray
    token_index: np.ndarray
    unread: str = ""


class TextReader:
    """Reads texts. A language's front end and BERT model are loaded when it first occurs.

    Args:
        cfg: names the front ends' options and the models.
        device: device that the BERT models compute on.
        full_precision: return features as float32, not as the float16 that shards hold.
    """

    def __init__(self, cfg: DataConfig, device: str = "cpu", full_precision: bool = False) -> None:
        self.cfg = cfg
        self.device = device
        self.full_precision = full_precision
        self._loaded: dict[str, tuple[FrontEnd, BertFeatures]] = {}

    def __call__(self, parts: Sequence[Part]) -> Reading:
        """Read a text of one or several languages.

        Inside the text a part has neither the silence at its ends nor its [CLS] and [SEP]: the
        phones of all parts follow each other as those of one text, each with the features of its
        own language's model.

        Raises:
            FrontEndError: a part has no phones, or is too long for its BERT model.
        """
        rows: list[np.ndarray] = []
        berts: list[np.ndarray] = []
        tokens = 0
        unread = ""
        for number, part in enumerate(parts):
            first = number == 0
            read, features = self._models(part.language)
            phonemes = read(part.text)
            unread += phonemes.unread
            berts.append(features([phonemes], self.full_precision)[0])
            row = self._row(phonemes, part.language, first, last=number == len(parts) - 1)
            row[-1] += tokens
            # the blank before a part is the last one of the part before
            rows.append(row if first or not self.cfg.add_blank else row[:, 1:])
            tokens += len(phonemes.word2ph)

        x, tone, language, spoken, token_index = np.concatenate(rows, axis=1)
        return Reading(x, tone, language, spoken, np.concatenate(berts), token_index, unread)

    def _models(self, language: str) -> tuple[FrontEnd, BertFeatures]:
        """Return the front end and the BERT model of a language."""
        if language not in self._loaded:
            read = front_end(self.cfg, language)
            self._loaded[language] = (read, bert_features(self.cfg, language, self.device))
        return self._loaded[language]

    def _row(self, phonemes: Phonemes, language: str, first: bool, last: bool) -> np.ndarray:
        """Return a part as int64 [5, T]: x, tone, language, spoken, and the token within the part.

        Args:
            phonemes: phones of the part.
            language: code of its language.
            first: whether it begins the text, with its silence.
            last: whether it ends the text, with its silence.
        """
        inner = slice(0 if first else 1, None if last else -1)
        word2ph = np.array(phonemes.word2ph)
        word2ph[[0, -1]] *= [first, last]
        ids = to_sequence(
            phonemes.phones[inner], phonemes.tones[inner], language, self.cfg.add_blank
        )
        index = expand_word2ph(word2ph.tolist(), self.cfg.add_blank)
        return np.stack([*ids, np.full(len(index), language_id(language)), index])
