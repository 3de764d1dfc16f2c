"""Whether job.transcribe cuts where speech begins and ends: `python -m benchmarks.transcribe`.

A recording of ten minutes is made of the demo corpus: utterances in random order with silences
between them, and noise of a given level. job.transcribe cuts it as a user would have it, with a
command for a recogniser that hears "heard" everywhere, so that the seconds are those of finding the
speech, cutting, writing, and of Ray. A boundary is where an utterance is first or last louder than
40 dB below its loudest 10 ms; it is found if a slice begins or ends within 0.2 s of it.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from job import transcribe

CORPUS = Path(__file__).parents[1] / "job/presets/demo_corpus"
RATE = 44100
NEAR_S = 0.2
QUIET_DB = 40.0
HEARS = (
    "import json, sys\n"
    "for path in open(sys.argv[1]):\n"
    "    print(json.dumps({'path': path.strip(), 'text': 'heard', 'language': 'en'}))\n"
)


def make_recording(
    path: Path, seconds: float, pauses: Sequence[float], noise_db: float, seed: int
) -> np.ndarray:
    """Write a recording of demo utterances; return its boundaries in seconds, float64 [n].

    Args:
        path: file to write.
        seconds: length that it reaches.
        pauses: shortest and longest silence, in seconds.
        noise_db: level of white noise, in dB of full scale.
        seed: of the order, the silences and the noise.
    """
    rng = np.random.default_rng(seed)
    files = sorted(CORPUS.glob("wavs/*/*.flac"))
    order = [files[index] for index in rng.permutation(len(files))]
    parts: list[np.ndarray] = []
    bounds: list[int] = []
    length, number = 0, 0
    while length < seconds * RATE:
        silence = np.zeros(int(rng.uniform(pauses[0], pauses[1]) * RATE), np.float32)
        wav, _ = soundfile.read(order[number % len(order)], dtype="float32")
        begin, end = loud_part(wav)
        bounds += [length + len(silence) + begin, length + len(silence) + end]
        parts += [silence, wav]
        length += len(silence) + len(wav)
        number += 1
    whole = np.concatenate(parts)
    whole += rng.normal(0, 10 ** (noise_db / 20), len(whole)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, whole, RATE, subtype="PCM_16")
    return np.array(bounds) / RATE


def loud_part(wav: np.ndarray) -> tuple[int, int]:
    """Return the first and last sample of what is louder than QUIET_DB below the loudest 10 ms."""
    size = RATE // 100
    windows = wav[: len(wav) // size * size].reshape(-1, size)
    level = np.sqrt(np.square(windows).mean(axis=1))
    loud = np.flatnonzero(level >= level.max() * 10 ** (-QUIET_DB / 20))
    return int(loud[0]) * size, int(loud[-1] + 1) * size


def errors_of(bounds: np.ndarray, slices: Sequence[dict]) -> np.ndarray:
    """Return the seconds from each boundary to the nearest begin or end of a slice."""
    found = np.array([[each["begin"], each["end"]] for each in slices]).ravel()
    return np.abs(bounds[:, None] - found[None]).min(axis=1)


def measure(args: argparse.Namespace, overrides: Sequence[str]) -> dict[str, float]:
    """Make a recording, transcribe it, and return the figures; overrides are configuration keys."""
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "recordings/speaker/one.wav"
        bounds = make_recording(recording, args.seconds, args.pauses, args.noise_db, args.seed)
        out = Path(folder) / "out"
        program = Path(folder) / "hears.py"
        program.write_text(HEARS, encoding="utf-8")
        command = shlex.join([sys.executable, str(program)])
        began = time.monotonic()
        transcribe.main(
            [
                *("--recordings", str(recording.parents[1]), "--out", str(out)),
                *("--data.asr.command", command),
                *overrides,
            ]
        )
        seconds = time.monotonic() - began
        slices = [json.loads(line) for line in (out / "slices.jsonl").open(encoding="utf-8")]
        (row,) = [json.loads(line) for line in (out / "ledger.jsonl").open(encoding="utf-8")]

    errors = errors_of(bounds, slices)
    found = int((errors <= NEAR_S).sum())
    lengths = [each["end"] - each["begin"] for each in slices]
    return {
        "recording_seconds": round(row["seconds"], 3),
        "pause_seconds": args.pauses,
        "noise_db": args.noise_db,
        "boundaries": len(bounds),
        "boundaries_found": found,
        "recall": round(found / len(bounds), 4),
        "error_median_s": round(float(np.median(errors)), 3),
        "error_p95_s": round(float(np.quantile(errors, 0.95)), 3),
        "slices": len(slices),
        "slice_shortest_s": round(min(lengths), 2),
        "slice_longest_s": round(max(lengths), 2),
        "kept_seconds": row["kept"],
        "dropped_seconds": round(sum(row["dropped"].values()), 3),
        "seconds": round(seconds, 2),
        "times_real_time": round(row["seconds"] / seconds, 1),
    }


def main(argv: Sequence[str]) -> None:
    """Run the benchmark."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.transcribe", description=__doc__)
    made.add_argument("--seconds", type=float, default=600.0, help="length of the recording")
    made.add_argument("--pauses", type=float, nargs=2, default=[1.0, 2.0], help="in seconds")
    made.add_argument("--noise-db", type=float, default=-60.0, help="white noise, dB of full scale")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", help="file to write the figures to")
    args, overrides = made.parse_known_args(argv)
    figures = measure(args, overrides)
    print(json.dumps(figures, indent=1))
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
