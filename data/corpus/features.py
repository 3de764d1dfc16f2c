"""The second pass over a corpus, first half: BERT features of the new rows; a block is a shard."""

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data.bert.models import bert_features
from data.config import DataConfig
from data.corpus.survey import LINE
from data.gpu import gpu_trouble
from data.shards.manifest import SHARD_COLUMNS
from data.text.front_end import Phonemes

if TYPE_CHECKING:
    from data.bert.features import BertFeatures

TEXTS_PER_BATCH = 16

_PHONEMES = [field.name for field in fields(Phonemes)]
_COPIED = ("id", "key", "speaker", "language", "text", "samples", "frames")
KEPT = pa.schema([SHARD_COLUMNS.field(name) for name in _COPIED] + [LINE.field("uri")])


def shard_block(surveyed: pa.Table, rows: list[dict]) -> pa.Table:
    """Return what this pass needs of a shard's rows: KEPT and the fields of Phonemes.

    Args:
        surveyed: rows of data.corpus.survey.SURVEYED.
        rows: as data.corpus.survey.judge returns them.
    """
    kept = [{name: row[name] for name in KEPT.names} for row in rows]
    block = pa.Table.from_pylist(kept, schema=KEPT)
    phonemes = surveyed.select(_PHONEMES).take([row["surveyed"] for row in rows])
    for field, column in zip(phonemes.schema, phonemes.columns, strict=True):
        block = block.append_column(field, column)
    return block


class BertActor:
    """Features of a shard's rows. A model is loaded when its language first occurs.

    Args:
        cfg: names the models.
        device: device to compute on; the CPU in place of a GPU that torch cannot use.
    """

    def __init__(self, cfg: DataConfig, device: str) -> None:
        self.cfg = cfg
        self.device = "cpu" if device == "cuda" and gpu_trouble() else device
        self.models: dict[str, BertFeatures] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the rows of `shard_block` with columns `bert` and `bert_width`."""
        languages = rows.column("language").to_pylist()
        tokens = [len(word2ph) for word2ph in rows.column("word2ph").to_pylist()]

        features: dict[int, np.ndarray] = {}
        for language in sorted(set(languages)):
            members = [i for i, other in enumerate(languages) if other == language]
            members.sort(key=lambda i: tokens[i])  # texts of like length pad little
            for start in range(0, len(members), TEXTS_PER_BATCH):
                batch = members[start : start + TEXTS_PER_BATCH]
                features |= zip(batch, self._features(language, rows.take(batch)), strict=True)

        arrays = [features[i] for i in range(len(languages))]
        content = pa.array([array.tobytes() for array in arrays], pa.binary())
        widths = pa.array([array.shape[1] for array in arrays], pa.int32())
        return rows.append_column("bert", content).append_column("bert_width", widths)

    def _features(self, language: str, rows: pa.Table) -> list[np.ndarray]:
        """Return arrays float16 [N, width] of rows of one language."""
        if language not in self.models:
            self.models[language] = bert_features(self.cfg, language, self.device)
        phonemes = [Phonemes(**row) for row in rows.select(_PHONEMES).to_pylist()]
        return self.models[language](phonemes)
