"""How fast preparation is, and what it takes: `python -m benchmarks.prepare [--json FILE] [--sizes 1000 4000]`.

Prepares copies of the demo corpus, each shifted, scaled and with a little noise, with tiny BERT
models, on two cores. Every size runs in a process and a Ray of its own. Seconds are those of
data.corpus.prepare.prepare, Ray's own start left out; memory is the greatest sum over the process
and all that it started, shared pages counted once. CPU seconds are of the same processes, Ray's
start included: on a machine that others use they say more than seconds.
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

CORPUS = Path(__file__).parents[1] / "job/presets/demo_corpus"
CORES = 2


def write_copies(folder: Path, size: int) -> None:
    """A corpus of `size` utterances: recordings, and esd.list."""
    lines = (CORPUS / "esd.list").read_text(encoding="utf-8").splitlines()
    (folder / "wavs").mkdir(parents=True)
    with ProcessPoolExecutor(CORES) as pool:
        copied = list(pool.map(partial(copy, folder, lines), range(size), chunksize=50))
    (folder / "esd.list").write_text("\n".join(copied), encoding="utf-8")


def copy(folder: Path, lines: list[str], number: int) -> str:
    """Write recording `number`; returns its line."""
    path, rest = lines[number % len(lines)].split("|", 1)
    wav, rate = soundfile.read(CORPUS / path, dtype="float32")
    rng = np.random.default_rng(number)
    start = rng.integers(rate // 50)
    wav = rng.uniform(0.6, 0.9) * wav[start:] + 1e-3 * rng.standard_normal(len(wav) - start)
    soundfile.write(folder / f"wavs/{number}.flac", wav, rate)
    return f"wavs/{number}.flac|{rest}"


def prepare_copies(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Prepare the corpus in `folder` on two cores; in a process of its own."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    from data.config import BertConfig, DataConfig
    from data.corpus.prepare import prepare

    ray.init(
        address="local",
        num_cpus=CORES,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
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
        "utterances_per_s": manifest.table.num_rows / seconds,
        "times_real_time": audio / seconds,
        "seconds": seconds,
        "hours_of_audio": audio / 3600,
        "shards_gib": size / 2**30,
    }


def measure(size: int, argv: list[str]) -> dict[str, float]:
    """The figures of one size."""
    with tempfile.TemporaryDirectory(prefix="bvr-") as temporary:
        folder = Path(temporary)
        write_copies(folder, size)
        command = [sys.executable, "-m", "benchmarks.prepare", "--folder", str(folder), *argv]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with watched(process.pid) as usage:
            output, _ = process.communicate()
        if process.returncode:
            sys.exit(output)
        used = {"peak_rss_gib": usage.peak / 2**30, "cpu_seconds": sum(usage.cpu_seconds.values())}
        return json.loads(output.splitlines()[-1]) | used


@dataclass
class Usage:
    """What a process and its descendants took.

    Attributes:
        peak: greatest memory of them all, bytes.
        cpu_seconds: of each, by process id.
    """

    peak: int = 0
    cpu_seconds: dict[int, float] = field(default_factory=dict)


@contextmanager
def watched(pid: int) -> Iterator[Usage]:
    """Look at a process and its descendants twice a second."""
    usage, ended = Usage(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            members = family(pid)
            usage.peak = max(usage.peak, sum(map(resident, members)))
            usage.cpu_seconds |= {
                member: spent for member in members if (spent := cpu_seconds(member))
            }

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield usage
    finally:
        ended.set()
        thread.join()


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for member in found:
        found += children.get(member, [])
    return found


def resident(pid: int) -> int:
    """Bytes of memory of a process, those that it shares divided among the sharers; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that a process has taken; 0 if it has ended."""
    try:
        columns = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """The command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__)
    made.add_argument("--json", type=Path, help="write the figures, one entry a size")
    made.add_argument("--sizes", type=int, nargs="+", default=[1000, 4000], help="utterances")
    made.add_argument("--spectrogram_on", choices=["pipeline", "shards"], default="pipeline")
    made.add_argument("--rows_per_shard", type=int, default=256)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the process that prepares
    args = made.parse_args()
    if args.folder:
        print(json.dumps(prepare_copies(args.folder, args)))
        return
    argv = ["--spectrogram_on", args.spectrogram_on, "--rows_per_shard", str(args.rows_per_shard)]
    results = {}
    for size in args.sizes:
        results[size] = measure(size, argv)
        print(f"{size}: " + ", ".join(f"{k} {v:.4g}" for k, v in results[size].items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
