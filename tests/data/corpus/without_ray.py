"""Preparation in this process: its own functions in a row, in place of Ray Data's actors."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import soundfile

import data.corpus.prepare
from data.config import DataConfig
from data.corpus.features import BertActor
from data.corpus.recipe import Recipe
from data.corpus.survey import Surveyor
from data.corpus.tables.files import TableFile
from data.corpus.tables.records import circumstances
from data.corpus.tables.shard_rows import HeldRows
from data.corpus.tables.surveyed import Surveyed
from data.corpus.transcript import Transcript
from data.corpus.writer import write_rows

RATE = 44100


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Let `prepare` compute here, for as long as the patch holds."""

    def survey_blocks(cfg: DataConfig, recipe: Recipe, blocks: TableFile) -> Iterator[pa.Table]:
        yield from map(Surveyor(cfg, recipe), _tables(blocks))

    def feature_blocks(cfg: DataConfig, recipe: Recipe, blocks: TableFile) -> Iterator[pa.Table]:
        actor = BertActor(cfg, "cpu")
        for block in _tables(blocks):
            yield write_rows(actor(block), cfg, recipe)

    patch.setattr(data.corpus.prepare, "survey_blocks", survey_blocks)
    patch.setattr(data.corpus.prepare, "feature_blocks", feature_blocks)


def survey_here(transcript: Transcript, surveyor: Surveyor) -> Surveyed:
    """Return what a surveyor finds out about a transcript; no parts are kept."""
    surveyed = Surveyed(transcript.lines)
    settings = circumstances(surveyor.cfg, surveyor.recipe)
    for block in _tables(surveyed.blocks(surveyor.recipe, settings, HeldRows(), 64)):
        surveyed.add(surveyor(block))
    surveyed.flush()
    return surveyed


def _tables(blocks: TableFile) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]) for batch in blocks.batches())


def write_sound(path, number: int, seconds: float = 1.5) -> None:
    """Write a recording that no other number has."""
    noise = np.random.default_rng(number).uniform(-0.3, 0.3, int(seconds * RATE))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, RATE, subtype="PCM_16")
