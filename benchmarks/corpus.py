"""What a large manifest costs its readers: `python -m benchmarks.corpus [--sizes N ...]`.

For each size it writes a made-up manifest with the preparation's writer, and measures what workers
and loaders call, each in a process of its own (no recordings: only the manifest). CPU seconds count
all threads of a process; memory is what a process has for itself, beside files that it shares with
others, above what the same process has on a corpus of a hundred utterances.

    write_s         the manifest is written
    read_s          it is read by the first process of a node, which makes the file that all share
    map_s           it is read by any other process
    plan_s          one epoch is planned
    worker_start_s  `trainable.worker.setup.set_up`, without Ray and with tiny networks, the plan of
                    the first epoch included; then the order of the first steps and their names
    worker_gib      memory of that worker, and `worker_peak_gib` the most it had meanwhile
    loader_gib      memory of a loader which has looked up many micro-batches
    lookup_us       shards, ranges and keys of a micro-batch of 16 utterances anywhere in the corpus
    bytes_per_row   the shared file of all columns but the names
    names_per_row   the names, which stay on the disk until a message needs one
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from data.shards.columns import NAMES, ROWS
from data.shards.manifest import COLUMNS, RANGE_COLUMNS, read_manifest, write_manifest
from data.shards.node_files import SUFFIX, own_folder
from data.stream.loading import row_loader
from data.stream.spec import StreamSpec, schedule_of
from job.on_ray.training import worker_config
from job.settings.cli import read_config
from job.settings.config import Config
from trainable.worker.preemption import Notice
from trainable.worker.progress import announce
from trainable.worker.setup import set_up

PRESETS = Path("job/presets")
SIZES = (100_000, 1_000_000, 10_000_000)
EMPTY = 100  # utterances of the corpus that others are compared with
SPEAKERS = 5_000
ROWS_PER_SHARD = 256
PER_MICRO_BATCH = 16
LOOK_UPS = 2_000
FRAMES_PER_SECOND = 44100 / 512
BYTES_PER_FRAME = 600
KIB_PER_GIB = 2**20


def made_up(size: int) -> pa.Table:
    """Return a manifest of lognormal lengths, with a hundredth held back for validation."""
    rng = np.random.default_rng(0)
    seconds = np.clip(5 * np.exp(0.6 * rng.standard_normal(size) - 0.18), 1, 12)
    frames = (seconds * FRAMES_PER_SECOND).astype(np.int32)
    number = np.arange(size)
    speaker = _texts("speaker", np.arange(SPEAKERS)).take(pa.array(number % SPEAKERS))
    digits = rng.bytes(16 * size).hex().encode()
    columns = {
        "id": pc.binary_join_element_wise(speaker, _texts("", number), "/"),
        "key": pa.array(np.frombuffer(digits, "S32")).cast(pa.string()),
        "speaker": speaker,
        "language": pa.array(["EN", "JP", "ZH"]).take(pa.array(number % SPEAKERS % 3)),
        "split": pa.array(["train", "validation"]).take(pa.array((number % 100 == 0).astype(int))),
        "frames": frames,
        "phones": np.maximum(0.3 * frames * np.exp(rng.normal(0, 0.15, size)), 1).astype(np.int32),
        "samples": frames.astype(np.int64) * 512,
        "shard": _texts("shards/" + 24 * "0", number // ROWS_PER_SHARD),
        "row": (number % ROWS_PER_SHARD).astype(np.int32),
    } | _ranges(frames, rng)
    return pa.table(columns).cast(pa.unify_schemas([COLUMNS, RANGE_COLUMNS]))


def _ranges(frames: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return RANGE_COLUMNS of rows that lie one behind the other, of some 50 kB per second."""
    length = frames.astype(np.int64) * BYTES_PER_FRAME
    first = np.arange(len(frames)) // ROWS_PER_SHARD * ROWS_PER_SHARD
    begins = np.cumsum(length) - length
    return {
        "offset": 4 + begins - begins[first],
        "length": length,
        "checksum": rng.integers(0, 2**32, len(frames), np.uint32),
    }


def _texts(before: str, numbers: np.ndarray) -> pa.Array:
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 8, "0")
    return pc.binary_join_element_wise(before, padded, "")


def configuration(folder: str) -> Config:
    """Return the full size's plan and the demo's networks, for shards and runs below a folder."""
    cfg = read_config(PRESETS / "demo.yaml")
    plan = read_config(PRESETS / "base.yaml").data.plan
    data = replace(cfg.data, shards=f"{folder}/shards", plan=plan)
    model = replace(cfg.model, n_speakers=SPEAKERS)
    return replace(cfg, data=data, model=model, run=replace(cfg.run, storage=f"{folder}/runs"))


class OneWorker:
    """The only worker of a run, which needs no Ray."""

    rank = 0
    world_size = 1
    device = torch.device("cpu")

    def wrap(self, net: nn.Module) -> nn.Module:
        """Return the network itself."""
        return net

    def report_progress(self, metrics: Mapping[str, float]) -> None:
        """Tell nobody."""

    def report_checkpoint(
        self, name: str, metrics: Mapping[str, Any], durable: Callable[[], str], wait: bool
    ) -> None:
        """Tell nobody."""

    def ask_for_notice(self) -> Notice | None:
        """Return None: nobody ends it."""


def written(folder: str, size: int) -> dict[str, float]:
    """Write the manifest."""
    cfg = configuration(folder)
    table = made_up(size)
    keys = ("sampling_rate", "filter_length", "hop_length", "win_length", "add_blank")
    header = {key: getattr(cfg.data, key) for key in keys} | {
        "spectrograms": False,
        "bert_width": cfg.model.bert_channels,
        "languages": ["EN", "JP", "ZH"],
        "speakers": {f"speaker{number:08}": number for number in range(SPEAKERS)},
    }
    began = time.process_time()
    write_manifest(cfg.data.shards, header, table)
    return {"write_s": time.process_time() - began}


def read(folder: str, size: int) -> dict[str, float]:
    """Read it as a node's first process, then as any other."""
    shards = configuration(folder).data.shards
    began = time.process_time()
    read_manifest(shards)
    made = time.process_time()
    assert len(read_manifest(shards)) == size
    mapped = time.process_time()

    (rows,) = own_folder().glob(f"*.{ROWS}{SUFFIX}")
    names = rows.with_name(rows.name.replace(ROWS, NAMES))
    return {
        "read_s": made - began,
        "map_s": mapped - made,
        "bytes_per_row": rows.stat().st_size / size,
        "names_per_row": names.stat().st_size / size,
    }


def planned(folder: str, size: int) -> dict[str, float]:
    """Plan an epoch."""
    schedule = schedule_of(spec_of(configuration(folder)))
    began = time.process_time()
    plan = schedule.plan(0)
    seconds = time.process_time() - began
    assert len(plan.order) >= 0.95 * size
    return {"plan_s": seconds}


def worker(folder: str, size: int) -> dict[str, float]:
    """Start a worker, up to where it asks for its first micro-batches."""
    cfg = configuration(folder)
    told = worker_config(cfg, owner="")
    Path(told.folder).mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    loop = set_up(told, OneWorker())
    plan = loop.schedule.plan(0)
    announce(0, plan, loop.names)
    assert loop.members(plan, 0, 0)
    seconds = time.process_time() - began
    figures = {"worker_start_s": seconds, **memory("worker")}
    loop.checkpoints.close()
    return figures


def loader(folder: str, size: int) -> dict[str, float]:
    """Look up micro-batches as a loader does."""
    rows_of = row_loader(spec_of(configuration(folder)))
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, size, (LOOK_UPS, PER_MICRO_BATCH)).tolist()
    began = time.process_time()
    for rows in wanted:
        rows_of.manifest.located(rows)
        rows_of.manifest.values("key", rows)
    seconds = time.process_time() - began
    return {"lookup_us": 1e6 * seconds / LOOK_UPS, **memory("loader")}


def share_files_in(folder: str) -> None:
    """Let this process share what it reads with others of the same folder."""
    tempfile.tempdir = folder


def spec_of(cfg: Config) -> StreamSpec:
    """Return what a run of a configuration would stream."""
    digest = read_manifest(cfg.data.shards).digest
    segment = cfg.train.segment_size // cfg.data.hop_length
    return StreamSpec.of_new_run(
        cfg.data, digest, cfg.train.seed, cfg.train.micro_batches_per_step, segment
    )


def memory(whose: str) -> dict[str, float]:
    """Return this process's memory without what it maps of files, and the most it had in all."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    entries = dict(line.split(":\t", 1) for line in status.splitlines())
    own, most = (int(entries[name].split()[0]) / KIB_PER_GIB for name in ("RssAnon", "VmHWM"))
    return {f"{whose}_gib": own, f"{whose}_peak_gib": most}


def measure(size: int) -> dict[str, float]:
    """Return the figures of one size; each part in a process of its own."""
    figures: dict[str, float] = {}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="bvr-") as folder:
        for part in (written, read, planned, worker, loader):
            with ProcessPoolExecutor(1, spawn, share_files_in, (folder,)) as process:
                figures |= process.submit(part, folder, size).result()
    return figures


def above(figures: Mapping[str, float], empty: Mapping[str, float]) -> dict[str, float]:
    """Return figures whose memory is what they have beyond an empty corpus's."""
    return {
        name: value - empty[name] if name.endswith("_gib") else value
        for name, value in figures.items()
    }


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of utterances")
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    empty = measure(EMPTY)
    sizes = {}
    for size in args.sizes:
        sizes[str(size)] = above(measure(size), empty)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in sizes[str(size)].items())
        print(f"{size}: {shown}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"sizes": sizes}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
