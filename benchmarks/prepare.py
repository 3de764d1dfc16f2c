"""How fast preparation is, and what it takes: `python -m benchmarks.prepare [--sizes 1000 4000]`.

From 20,000 utterances on it is another measurement, see benchmarks.prepare_large: what the driver
holds per line, and what is done twice after a kill.

It prepares copies of the demo corpus, each shifted, scaled and with a little noise, with tiny BERT
models, on two cores. Every size runs in a process and a Ray of its own. Seconds are those of
data.corpus.prepare.prepare, without Ray's own start; memory is the greatest sum over the process
and all that it started, shared pages counted once. CPU seconds are of the same processes, with
Ray's start: on a machine that others use they say more than seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.prepare_large import LARGE, measure_large
from benchmarks.processes import family
from job.settings.cli import hidden_alias

CORPUS = Path(__file__).parents[1] / "job/presets/demo_corpus"
CORES = 2


def write_copies(folder: Path, size: int) -> None:
    """Write a corpus of `size` utterances: recordings, and esd.list."""
    lines = (CORPUS / "esd.list").read_text(encoding="utf-8").splitlines()
    (folder / "wavs").mkdir(parents=True)
    with ProcessPoolExecutor(CORES) as pool:
        copied = list(pool.map(partial(copy, folder, lines), range(size), chunksize=50))
    (folder / "esd.list").write_text("\n".join(copied), encoding="utf-8")


def copy(folder: Path, lines: list[str], number: int) -> str:
    """Write recording `number`; return its line of the transcript."""
    path, rest = lines[number % len(lines)].split("|", 1)
    wav, rate = soundfile.read(CORPUS / path, dtype="float32")
    rng = np.random.default_rng(number)
    start = rng.integers(rate // 50)
    wav = rng.uniform(0.6, 0.9) * wav[start:] + 1e-3 * rng.standard_normal(len(wav) - start)
    soundfile.write(folder / f"wavs/{number}.flac", wav, rate)
    return f"wavs/{number}.flac|{rest}"


def prepare_copies(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Prepare the corpus in `folder` on two cores, in this process; return the figures."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    from data.config import BertConfig, DataConfig
    from data.corpus.prepare import prepare
    from job.on_ray.private import start_on_loopback

    start_on_loopback(CORES, None)
    bert = BertConfig(zh="random", jp="random", en="random", random_width=32)
    cfg = DataConfig(
        transcript=str(folder / "esd.list"),
        shards=str(folder / "out"),
        bert=bert,
        spectrogram_on=args.spectrogram_on,
        rows_per_shard=args.rows_per_shard,
    )
    began = time.monotonic()
    manifest = prepare(cfg)
    seconds = time.monotonic() - began
    ray.shutdown()
    audio = float(manifest.column("samples").sum()) / cfg.sampling_rate
    size = sum(path.stat().st_size for path in (folder / "out/shards").iterdir())
    return {
        "utterances_per_s": len(manifest) / seconds,
        "times_real_time": audio / seconds,
        "seconds": seconds,
        "hours_of_audio": audio / 3600,
        "shards_gib": size / 2**30,
    }


def measure(size: int, argv: list[str]) -> dict[str, float]:
    """Return the figures of one size."""
    with tempfile.TemporaryDirectory(prefix="bvr-") as temporary:
        folder = Path(temporary)
        write_copies(folder, size)
        command = [sys.executable, "-m", "benchmarks.prepare", "--folder", str(folder), *argv]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        with watched(process.pid) as usage:
            output, _ = process.communicate()
        if process.returncode:
            sys.exit(output)
        figures = json.loads(output.splitlines()[-1])
        cpu = sum(usage.cpu_seconds.values())
        return figures | {"peak_rss_gib": usage.peak / 2**30, "cpu_seconds": cpu}


@dataclass
class Usage:
    """What a process and its descendants took.

    Attributes:
        peak: greatest memory of all together, bytes.
        cpu_seconds: process id -> seconds of CPU.
    """

    peak: int = 0
    cpu_seconds: dict[int, float] = field(default_factory=dict)


@contextmanager
def watched(pid: int) -> Iterator[Usage]:
    """Look at a process and its descendants twice a second."""
    usage = Usage()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            members = family(pid)
            usage.peak = max(usage.peak, sum(map(resident, members)))
            spent = {member: cpu_seconds(member) for member in members}
            # a process that has ended keeps what it had spent
            usage.cpu_seconds |= {member: each for member, each in spent.items() if each}

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        ended.set()
        thread.join()


def resident(pid: int) -> int:
    """Return a process's memory, bytes, shared pages divided among sharers; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def cpu_seconds(pid: int) -> float:
    """Return the seconds of CPU that a process has taken; 0 if it has ended."""
    try:
        columns = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__)
    made.add_argument("--json", type=Path, help="write the figures, one entry per size")
    made.add_argument("--sizes", type=int, nargs="+", default=[1000, 4000], help="utterances")
    places = ["pipeline", "shards"]
    made.add_argument("--spectrogram-on", choices=places, default="pipeline")
    hidden_alias(made, "--spectrogram_on", "spectrogram_on", choices=places)
    made.add_argument("--rows-per-shard", type=int, default=256)
    hidden_alias(made, "--rows_per_shard", "rows_per_shard", type=int)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the process that prepares
    args = made.parse_args()
    if args.folder:
        print(json.dumps(prepare_copies(args.folder, args)))
        return
    argv = ["--spectrogram-on", args.spectrogram_on, "--rows-per-shard", str(args.rows_per_shard)]
    results = {}
    for size in args.sizes:
        results[size] = measure_large(size) if size >= LARGE else measure(size, argv)
        print(f"{size}: " + ", ".join(f"{k} {v:.4g}" for k, v in results[size].items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
