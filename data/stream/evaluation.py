"""The fixed sets of utterances that a run is evaluated on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from data.config import DataConfig
from data.plan.epoch_plan import UNPADDED
from data.stream.collate import TtsBatch, to_batch
from data.stream.damage import Damage
from data.stream.loading import row_loader
from data.stream.spec import StreamSpec, manifest_of


@dataclass(frozen=True)
class EvaluationUtterance:
    """One utterance of a set.

    Attributes:
        number: its number within the set.
        row: its row of the manifest.
        batch: a batch that holds it alone.
        text: text as the transcript writes it.
        language: code of data.text.languages.
    """

    number: int
    row: int
    batch: TtsBatch
    text: str
    language: str


def evaluation_rows(spec: StreamSpec, split: str, limit: int) -> np.ndarray:
    """Return the rows of `limit` utterances of a split, int64 [n]: the same for every run.

    They are ordered by a hash of their ids, so that any first few of them are a fair sample of
    speakers.
    """
    return manifest_of(spec).sample(split, limit, spec.cut.segment_frames)


def without_padding(data: DataConfig) -> DataConfig:
    """Return the same data, with micro-batches as long as their longest utterance."""
    return replace(data, plan=replace(data.plan, pad_to=UNPADDED))


def evaluation_set(
    spec: StreamSpec, rows: np.ndarray, rank: int, world_size: int, damage: Damage
) -> Iterator[EvaluationUtterance]:
    """Load this rank's share of a set, those whose number % world_size == rank.

    What cannot be read is left out. It is noted in `damage`, and all ranks must call
    `damage.raise_on_all_ranks` afterwards.

    Args:
        spec: names the data.
        rows: rows of the manifest, int64 [n].
        rank: rank of this worker.
        world_size: number of workers.
        damage: notes rows that cannot be read.
    """
    # alone, an utterance needs no padding, and a score does not depend on how micro-batches have it
    loader = row_loader(replace(spec, data=without_padding(spec.data)))
    languages = manifest_of(spec).values("language", rows)
    for number in range(rank, len(rows), world_size):
        loaded = loader.load(rows[number : number + 1])
        damage.note(loaded.error, loaded.replaced)
        if not loaded.arrays:
            continue
        batch = to_batch(loaded.arrays, bert_config=spec.data.bert)
        # a replacement's own text
        text = loader.text(int(batch.rows[0]))
        row = int(rows[number])
        yield EvaluationUtterance(number, row, batch, text, languages[number])
