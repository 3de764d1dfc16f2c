"""From a text to what the text encoder reads, for synthesis: the same front ends and features as in the shards."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.bert.features import BertFeatures
from data.config import DataConfig
from data.corpus.recipe import bert_features, front_end
from data.text.front_end import FrontEnd, expand_word2ph, to_sequence
from data.text.marked import Part
from data.text.symbols import language_id


@dataclass(frozen=True)
class Reading:
    """A text of N tokens as T phones with their blanks.

    Attributes:
        x: phone ids, int64 [T].
        tone: tone ids, int64 [T].
        language: language ids, int64 [T]; of blanks 0.
        spoken: language ids, int64 [T]; of blanks that of the part that they stand in.
        bert: features a token, float16 [N, width].
        token_index: token of each phone, int64 [T].
    """

    x: np.ndarray
    tone: np.ndarray
    language: np.ndarray
    spoken: np.ndarray
    bert: np.ndarray
    token_index: np.ndarray


class TextReader:
    """Reads texts. A language's front end and BERT model are loaded when it first comes.

    Args:
        cfg: names them.
        device: that the BERT models compute on.
    """

    def __init__(self, cfg: DataConfig, device: str = "cpu") -> None:
        self.cfg = cfg
        self.device = device
        self._loaded: dict[str, tuple[FrontEnd, BertFeatures]] = {}

    def __call__(self, parts: Sequence[Part]) -> Reading:
        """Reads a text of one or several languages.

        Inside the text a part has neither the silence at its ends nor its [CLS] and [SEP]: the
        phones of all parts follow each other as those of one text, each with the features of its
        own language's model.

        Raises:
            FrontEndError: a part has no phones, or is too long for its BERT model.
        """
        rows, berts, tokens = [], [], 0
        for number, part in enumerate(parts):
            first, last = number == 0, number == len(parts) - 1
            if part.language not in self._loaded:
                models = (
                    front_end(self.cfg, part.language),
                    bert_features(self.cfg, part.language, self.device),
                )
                self._loaded[part.language] = models
            read, features = self._loaded[part.language]
            phonemes = read(part.text)
            berts.append(features([phonemes])[0])
            inner = slice(0 if first else 1, None if last else -1)
            word2ph = np.array(phonemes.word2ph)
            word2ph[[0, -1]] *= [first, last]
            ids = to_sequence(
                phonemes.phones[inner], phonemes.tones[inner], part.language, self.cfg.add_blank
            )
            index = tokens + expand_word2ph(word2ph.tolist(), self.cfg.add_blank)
            row = np.stack([*ids, np.full(len(index), language_id(part.language)), index])
            # the blank before a part is the last one of the part before
            rows.append(row if first or not self.cfg.add_blank else row[:, 1:])
            tokens += len(word2ph)
        x, tone, language, spoken, token_index = np.concatenate(rows, axis=1)
        return Reading(x, tone, language, spoken, np.concatenate(berts), token_index)
