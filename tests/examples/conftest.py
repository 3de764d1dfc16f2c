"""Shards of a tiny corpus with the demo's speakers, made in this process, without Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.audio.recording import encode_flac
from data.shards.manifest import COLUMNS, write_manifest
from data.shards.shard import write_shard
from tests.tiny import tiny_config

SPEAKERS = {"en_f1": 0, "jp_m1": 1, "zh_f1": 2}
LANGUAGES = ("EN", "JP", "ZH")
UTTERANCES = 12
PHONES = ["_", "a", "a", "a", "_"]


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """Twelve utterances of noise, of 20 to 40 frames."""
    folder = tmp_path_factory.mktemp("shards")
    cfg = tiny_config().data
    rng = np.random.default_rng(0)
    rows = [shard_row(number, cfg, rng) for number in range(UTTERANCES)]
    shard = write_shard(str(folder), rows)

    entries = []
    for number, row in enumerate(rows):
        split = "validation" if number >= UTTERANCES - 2 else "train"
        place = {"shard": shard, "row": number, "split": split, "phones": len(PHONES)}
        entries.append({name: (row | place)[name] for name in COLUMNS.names})
    header = {"speakers": SPEAKERS, "spectrograms": False}
    write_manifest(str(folder), header, pa.Table.from_pylist(entries, COLUMNS))
    return folder


def shard_row(number: int, cfg, rng: np.random.Generator) -> dict:
    """An utterance of noise, with features as wide as those of random BERT models."""
    speaker = sorted(SPEAKERS)[number % len(SPEAKERS)]
    frames = int(rng.integers(20, 40))
    wave = rng.uniform(-0.5, 0.5, frames * cfg.hop_length).astype(np.float32)
    width = cfg.bert.random_width
    bert = rng.standard_normal((len(PHONES), width)).astype(np.float16)
    return {
        "id": f"{number:02d}",
        "key": f"key {number}",
        "speaker": speaker,
        "language": LANGUAGES[number % len(SPEAKERS)],
        "text": "a",
        "norm_text": "a",
        "phones": PHONES,
        "tones": [0] * len(PHONES),
        "word2ph": [1] * len(PHONES),
        "audio": encode_flac(wave, cfg.sampling_rate),
        "samples": len(wave),
        "frames": frames,
        "bert": bert.tobytes(),
        "bert_width": width,
        "spec": b"",
    }
