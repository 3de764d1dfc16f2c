"""The second pass over a corpus: BERT features, FLAC and spectrograms of the rows that no shard holds yet, written.

A block of rows becomes a shard. What must be right for every row alike (a store that does not answer, a full disk, a
recording that changed meanwhile) comes back as a `problem`, for the run to stop with.
"""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pyarrow as pa
import torch

from data.audio import decode_audio, decode_flac, encode_flac, read_audio
from data.bert import BertFeatures
from data.config import DataConfig
from data.ledger import RejectedError
from data.manifest import SHARD_COLUMNS
from data.recipe import Recipe, bert_features
from data.shards import write_shard
from data.spectrogram import spectrogram
from data.survey import LINE
from data.text.front_end import Phonemes

TEXTS_PER_BATCH = 16

_PHONEMES = [field.name for field in fields(Phonemes)]
KEPT = pa.schema(
    [SHARD_COLUMNS.field(name) for name in ("id", "key", "speaker", "language", "text", "samples", "frames")]
    + [LINE.field("uri")]
)
WRITTEN = pa.schema([("key", pa.string()), ("shard", pa.string()), ("row", pa.int32()), ("problem", pa.string())])


def shard_block(surveyed: pa.Table, rows: list[dict]) -> pa.Table:
    """What this pass needs of a shard's rows: KEPT and the fields of Phonemes.

    Args:
        surveyed: rows of data.survey.SURVEYED.
        rows: as data.survey.judge returns them.
    """
    block = pa.Table.from_pylist([{name: row[name] for name in KEPT.names} for row in rows], schema=KEPT)
    phonemes = surveyed.select(_PHONEMES).take([row["surveyed"] for row in rows])
    for field, column in zip(phonemes.schema, phonemes.columns, strict=True):
        block = block.append_column(field, column)
    return block


class BertActor:
    """Features of a shard's rows. Models are loaded when their language first comes.

    Args:
        cfg: names the models.
        device: to compute on.
    """

    def __init__(self, cfg: DataConfig, device: str) -> None:
        self.cfg = cfg
        self.device = device
        self.models: dict[str, BertFeatures] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows with `bert` and `bert_width`, from those of `shard_block`."""
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
        return rows.append_column("bert", pa.array([array.tobytes() for array in arrays], pa.binary())).append_column(
            "bert_width", pa.array([array.shape[1] for array in arrays], pa.int32())
        )

    def _features(self, language: str, rows: pa.Table) -> list[np.ndarray]:
        """Arrays float16 [N, width] of rows of one language."""
        if language not in self.models:
            self.models[language] = bert_features(self.cfg, language, self.device)
        return self.models[language]([Phonemes(**row) for row in rows.select(_PHONEMES).to_pylist()])


def write_rows(rows: pa.Table, cfg: DataConfig, recipe: Recipe) -> pa.Table:
    """Decode and encode the recordings of a shard, and write it.

    Args:
        rows: those of BertActor.
        cfg: where to, and how audio and spectrograms are made.
        recipe: that the rows' keys were made by.

    Returns:
        Rows of WRITTEN.
    """
    finished: list[str] = []
    try:
        shard = write_shard(cfg.shards, _finish(rows, cfg, recipe, finished))
    except ChangedError as error:
        return _problem(f"{error} changed while it was prepared. Run python -m job.prepare again: what is done is kept")
    except OSError as error:
        return _problem(str(error))
    places = [{"key": key, "shard": shard, "row": number} for number, key in enumerate(finished)]
    return pa.Table.from_pylist(places, schema=WRITTEN)


class ChangedError(Exception):
    """A recording is not what it was in the first pass."""


def _finish(rows: pa.Table, cfg: DataConfig, recipe: Recipe, finished: list[str]) -> Iterator[dict]:
    """Rows of SHARD_COLUMNS, one after the other, their keys noted in `finished`."""
    for row in (rows.slice(i, 1).to_pylist()[0] for i in range(rows.num_rows)):
        try:
            audio = read_audio(row["uri"])
        except RejectedError as error:
            raise ChangedError(row["uri"]) from error
        if recipe.key(row["id"], row["text"], row["language"], row["speaker"], audio) != row["key"]:
            raise ChangedError(row["uri"])
        flac = encode_flac(decode_audio(audio, cfg), cfg.sampling_rate)
        finished.append(row["key"])
        yield row | {"audio": flac, "spec": stored_spectrogram(flac, cfg) if cfg.spectrogram_on == "shards" else b""}


def stored_spectrogram(flac: bytes, cfg: DataConfig) -> bytes:
    """The spectrogram of what training will hear: float32 [filter_length / 2 + 1, frames]."""
    wav = torch.from_numpy(decode_flac(flac))[None]
    return spectrogram(wav, cfg.filter_length, cfg.hop_length, cfg.win_length)[0].numpy().tobytes()


def _problem(what: str) -> pa.Table:
    return pa.Table.from_pylist([{"problem": what}], schema=WRITTEN)
