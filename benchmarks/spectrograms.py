"""Where linear spectrograms are best computed: `python -m benchmarks.spectrograms [--json FILE]`.

It reads the demo corpus from shards and collates it as loaders do, on one thread, in each way of
data.spectrogram_on: milliseconds of CPU and bytes of shards per second of audio. With `device` the
loader computes none: a GPU does it in no time, and fewer bytes cross to it than in the other two.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from data.audio.recording import decode_audio, encode_flac, read_audio
from data.config import DataConfig
from data.corpus.transcript import read_transcript
from data.corpus.writer import stored_spectrogram
from data.shards.shard import ShardReader, write_shard
from data.stream.collate import collate

CORPUS = Path(__file__).parents[1] / "job/presets/demo_corpus/esd.list"
BERT_WIDTH = 1024
TOKENS = 20
BATCH = 8
WAYS: tuple[Literal["device", "pipeline", "shards"], ...] = ("device", "pipeline", "shards")


def rows(cfg: DataConfig) -> list[dict]:
    """Return the corpus as rows of SHARD_COLUMNS, the shortest first, with random features."""
    rng = np.random.default_rng(0)
    made = []
    for line in read_transcript(str(CORPUS)).lines:
        wav = decode_audio(read_audio(line.uri), cfg)
        flac = encode_flac(wav, cfg.sampling_rate)
        bert = rng.standard_normal((TOKENS, BERT_WIDTH)).astype(np.float16)
        spec = stored_spectrogram(flac, cfg) if cfg.spectrogram_on == "shards" else b""
        made.append(
            {
                "id": line.id,
                "key": line.id,
                "speaker": line.speaker,
                "language": line.language,
                "text": line.text,
                "norm_text": line.text,
                "phones": ["_"] * TOKENS,
                "tones": [0] * TOKENS,
                "word2ph": [1] * TOKENS,
                "audio": flac,
                "samples": len(wav),
                "frames": len(wav) // cfg.hop_length,
                "bert": bert.tobytes(),
                "bert_width": BERT_WIDTH,
                "spec": spec,
            }
        )
    return sorted(made, key=lambda row: row["samples"])


def measure(cfg: DataConfig, repeats: int) -> dict[str, float]:
    """Return the figures of one way.

    Args:
        cfg: the configuration, whose spectrogram_on is measured.
        repeats: runs that count; the first one, which fills the page cache, does not.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = rows(cfg)
        shard = write_shard(folder, made)
        assert shard
        seconds = sum(row["samples"] for row in made) / cfg.sampling_rate
        speakers = {row["speaker"]: 0 for row in made}
        times = []
        for _ in range(repeats + 1):
            reader = ShardReader(folder)
            began = time.process_time()
            for start in range(0, len(made), BATCH):
                numbers = range(start, min(start + BATCH, len(made)))
                collate([reader.row(shard, number) for number in numbers], numbers, speakers, cfg)
            times.append(time.process_time() - began)
            reader.close()
        size = (Path(folder) / shard).stat().st_size
    return {
        "cpu_ms_per_s": 1e3 * float(np.median(times[1:])) / seconds,
        "kb_per_s": size / 1e3 / seconds,
    }


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.spectrograms", description=__doc__)
    made.add_argument("--json", type=Path, help="write the figures, one entry per way")
    made.add_argument("--repeats", type=int, default=5)
    args = made.parse_args()
    torch.set_num_threads(1)
    results = {
        way: measure(replace(DataConfig(), spectrogram_on=way), args.repeats) for way in WAYS
    }
    for way, figures in results.items():
        print(f"{way}: " + ", ".join(f"{k} {v:.3g}" for k, v in figures.items()))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
