"""Preparation in this process: its own functions in a row, in place of Ray Data's actors."""

import numpy as np
import pyarrow as pa
import pytest
import soundfile

import data.corpus.prepare
from data.corpus.features import BertActor, shard_block
from data.corpus.survey import LINE, Surveyor, line_rows
from data.corpus.writer import write_rows

RATE = 44100


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Let `prepare` compute here, for as long as the patch holds."""

    def survey(cfg, transcript, recipe, held):
        lines = pa.Table.from_pylist(line_rows(transcript), schema=LINE)
        return Surveyor(cfg, recipe, frozenset(held))(lines)

    def compute(cfg, recipe, surveyed, rows):
        if not rows:
            return {}
        written = write_rows(BertActor(cfg, "cpu")(shard_block(surveyed, rows)), cfg, recipe)
        places = written.to_pylist()
        assert not [place["problem"] for place in places if place.get("problem")]
        return {place["key"]: (place["shard"], place["row"]) for place in places}

    patch.setattr(data.corpus.prepare, "_survey", survey)
    patch.setattr(data.corpus.prepare, "_compute", compute)


def write_sound(path, number: int, seconds: float = 1.5) -> None:
    """Write a recording that no other number has."""
    noise = np.random.default_rng(number).uniform(-0.3, 0.3, int(seconds * RATE))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, RATE, subtype="PCM_16")
