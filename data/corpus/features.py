"""The second pass over a corpus, first half: BERT features of the new rows; a block is a shard."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data.bert.models import bert_features
from data.config import DataConfig
from data.corpus.tables.records import LINE, RECORDS
from data.corpus.tables.rows import Rows
from data.gpu import gpu_trouble
from data.quality.measures import MEASURES
from data.shards.manifest import SHARD_COLUMNS
from data.text.front_end import Phonemes

if TYPE_CHECKING:
    from data.bert.features import BertFeatures

TEXTS_PER_BATCH = 16

_PHONEMES = [field.name for field in fields(Phonemes)]
_COPIED = ("id", "speaker", "language", "text")
_OF_SHARD = ("id", "key", "speaker", "language", "text", "samples", "frames")
BLOCK = pa.schema(
    [SHARD_COLUMNS.field(name) for name in _OF_SHARD]
    + [LINE.field("uri")]
    + [RECORDS.field(name) for name in (*_PHONEMES, *MEASURES.names)]
)


def shard_block(rows: Rows, chosen: np.ndarray) -> pa.Table:
    """Return what this pass needs of a shard's rows: BLOCK.

    Args:
        rows: as data.corpus.survey.judge returns them.
        chosen: numbers of the shard's rows, int64 [n].
    """
    block = rows.columns(chosen, [*_COPIED, "uri"])
    counted = {
        "key": rows.keys(chosen).astype(str),
        "samples": rows.samples[chosen],
        "frames": rows.frames[chosen],
    }
    for name, values in counted.items():
        block = block.append_column(BLOCK.field(name), pa.array(values, BLOCK.field(name).type))
    found = rows.surveyed.take(rows.line[chosen], [*_PHONEMES, *MEASURES.names])
    for field, column in zip(found.schema, found.columns, strict=True):
        block = block.append_column(field, column)
    return block.select(BLOCK.names)


class BertActor:
    """Features of a shard's rows. A model is loaded when its language first occurs.

    Args:
        cfg: names the models.
        device: device to compute on; the CPU in place of a GPU that torch cannot use.
        limited: what a batch of texts is computed in.
    """

    def __init__(
        self,
        cfg: DataConfig,
        device: str,
        limited: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.cfg = cfg
        self.limited = limited
        self.device = "cpu" if device == "cuda" and gpu_trouble() else device
        self.models: dict[str, BertFeatures] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the rows of `shard_block` with columns `bert` and `bert_width`."""
        languages = rows.column("language").to_pylist()
        tokens = [len(word2ph) for word2ph in rows.column("word2ph").to_pylist()]

        features: dict[int, np.ndarray] = {}
        for language in sorted(set(languages)):
            self.load(language)
            members = [i for i, other in enumerate(languages) if other == language]
            members.sort(key=lambda i: tokens[i])  # texts of like length pad little
            for start in range(0, len(members), TEXTS_PER_BATCH):
                batch = members[start : start + TEXTS_PER_BATCH]
                with self.limited():
                    found = self._features(language, rows.take(batch))
                features |= zip(batch, found, strict=True)

        arrays = [features[i] for i in range(len(languages))]
        content = pa.array([array.tobytes() for array in arrays], pa.binary())
        widths = pa.array([array.shape[1] for array in arrays], pa.int32())
        return rows.append_column("bert", content).append_column("bert_width", widths)

    def load(self, language: str) -> None:
        """Load the model of a language, which may take long."""
        if language not in self.models:
            self.models[language] = bert_features(self.cfg, language, self.device)

    def _features(self, language: str, rows: pa.Table) -> list[np.ndarray]:
        """Return arrays float16 [N, width] of rows of one language, whose model is loaded."""
        phonemes = [Phonemes(**row) for row in rows.select(_PHONEMES).to_pylist()]
        return self.models[language](phonemes)
