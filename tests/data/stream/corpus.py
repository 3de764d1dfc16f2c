"""A corpus of noise, written as shards."""

import numpy as np
import pyarrow as pa

from data.audio.recording import encode_flac
from data.config import DataConfig
from data.plan.epoch_plan import UNPADDED
from data.settings.plan import PlanConfig
from data.shards.manifest import COLUMNS, write_manifest
from data.shards.shard import with_ranges, write_shard
from data.stream.spec import StreamSpec

UTTERANCES = 20
VALIDATION = range(17, UTTERANCES)
TOKENS = 5
BERT_WIDTH = 8
G = 4  # micro-batches per step


def make_corpus(
    uri: str, rows_per_shard: int = 20, audio: bytes | None = None, ranges: bool = True
) -> StreamSpec:
    """Write twenty short utterances.

    Args:
        uri: folder or URI.
        rows_per_shard: utterances per shard.
        audio: content of every recording; None for noise as FLAC.
        ranges: whether the manifest tells where rows lie in their files, which older code did not.
    """
    rng = np.random.default_rng(0)
    rows = [utterance(rng, number, audio) for number in range(UTTERANCES)]
    starts = range(0, UTTERANCES, rows_per_shard)
    shards = [write_shard(uri, rows[start : start + rows_per_shard]) for start in starts]
    table = [
        {
            **{name: row.get(name) for name in COLUMNS.names},
            "split": "validation" if number in VALIDATION else "train",
            "phones": TOKENS,
            "shard": shards[number // rows_per_shard],
            "row": number % rows_per_shard,
        }
        for number, row in enumerate(rows)
    ]
    header = {"speakers": {"a": 0, "b": 1}, "spectrograms": False}
    made = pa.Table.from_pylist(table, COLUMNS)
    manifest = write_manifest(uri, header, with_ranges(uri, made) if ranges else made)
    plan = PlanConfig(max_frames=120, max_utterances=3, pad_to=UNPADDED)
    cfg = DataConfig(shards=uri, plan=plan)
    return StreamSpec.of_new_run(
        cfg, manifest.digest, seed=3, micro_batches_per_step=G, segment_frames=8
    )


def utterance(rng: np.random.Generator, number: int, audio: bytes | None) -> dict:
    """Return a row of a shard."""
    frames = int(rng.integers(20, 60))
    samples = frames * 512
    noise = rng.uniform(-0.5, 0.5, samples).astype(np.float32)
    return {
        "id": f"{number:02d}",
        "key": f"k{number}",
        "speaker": "ab"[number % 2],
        "language": ("ZH", "JP", "EN")[number % 3],
        "text": "x",
        "norm_text": "x",
        "phones": ["_", "a", "a", "a", "_"],
        "tones": [0] * TOKENS,
        "word2ph": [1] * TOKENS,
        "audio": encode_flac(noise, 44100) if audio is None else audio,
        "samples": samples,
        "frames": frames,
        "bert": rng.standard_normal((TOKENS, BERT_WIDTH)).astype(np.float16).tobytes(),
        "bert_width": BERT_WIDTH,
        "spec": b"",
    }
