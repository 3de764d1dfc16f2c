"""What an epoch asks an object store for: `python -m benchmarks.shard_requests [--sizes N ...]`.

For each size it makes up lengths (lognormal, as benchmarks.padding), lays them into shards as the
preparation does, plans two epochs as training does, and joins the rows of each micro-batch as the
reader does. No rows are written. A smaller corpus is written beside it, to an S3 server in this
process, and a loader reads an epoch of it: its requests are counted there.

    requests_per_utterance  requests for rows; the manifest is read once per node
    bytes_ratio             bytes that these fetch, per byte of the rows that they are for
    padded                  share of the frames of micro-batches that is padding, without pad_to
    pairs_again             of the pairs that an epoch has together in a micro-batch, the share that
                            the next one has together too
"""

import argparse
import json
import threading
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.padding import G, plan, synthetic
from data.config import DataConfig
from data.plan.blocks import strip_order
from data.plan.epoch_plan import EpochPlan
from data.shards.manifest import COLUMNS, Manifest, write_manifest
from data.shards.ranges import Place, Range, joined
from data.shards.shard import with_ranges, write_shard
from data.stream.loading import row_loader
from data.stream.spec import StreamSpec, schedule_of
from tools.s3_server import s3_server

SIZES = (1_000_000, 10_000_000)
COUNTED = 20_000
SIGMA = 0.6
ROWS_PER_SHARD = DataConfig().rows_per_shard
BYTES_PER_FRAME = 600  # FLAC and features of speech
LOOKED_AT = 50_000  # micro-batches whose requests are simulated, evenly spread
BUCKET = "corpora"


@dataclass(frozen=True)
class Layout:
    """Where rows lie, int64 [n] each.

    Attributes:
        shard: number of the shard.
        row: row of that shard.
        offset: first byte in its file.
        length: number of bytes.
    """

    shard: np.ndarray
    row: np.ndarray
    offset: np.ndarray
    length: np.ndarray

    @classmethod
    def of(cls, frames: np.ndarray, tokens: np.ndarray) -> "Layout":
        """Return that of a new corpus, sorted by frames, as data.corpus.prepare lays it out."""
        number = np.arange(len(frames))
        order = strip_order(frames, tokens)
        length = frames[order] * BYTES_PER_FRAME
        begins = np.cumsum(length) - length
        first = number - number % ROWS_PER_SHARD
        columns = (number - first, begins - begins[first], length)
        place = np.argsort(order)
        return cls(place // ROWS_PER_SHARD, *(column[place] for column in columns))

    def only(self, chosen: np.ndarray) -> "Layout":
        """Return that of some rows, bool [n]."""
        return Layout(*(getattr(self, name.name)[chosen] for name in fields(self)))

    def places(self, rows: np.ndarray) -> list[Place]:
        """Return where some rows lie, int [b]."""
        shard, row, *range_ = (
            column[rows].tolist() for column in (self.shard, self.row, self.offset, self.length)
        )
        ranges = [Range(offset, length, 0) for offset, length in zip(*range_, strict=True)]
        return [Place(str(s), r, own) for s, r, own in zip(shard, row, ranges, strict=True)]


def corpus(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return frames, tokens and whether it is trained on, of each row of a manifest, [n]."""
    frames, tokens = synthetic(SIGMA, size)
    by_frames = np.argsort(frames, kind="stable")
    trained = np.random.default_rng(0).random(size) >= DataConfig().validation_share
    return frames[by_frames], tokens[by_frames], trained


def grown_layout(frames: np.ndarray, tokens: np.ndarray, later: np.ndarray) -> Layout:
    """Return where rows lie if some of them, bool [n], came later, into shards of their own."""
    before, after = (Layout.of(frames[own], tokens[own]) for own in (~later, later))
    shards = after.shard + len(frames)  # other numbers than those before
    columns = zip(astuple(before), astuple(replace(after, shard=shards)), strict=True)
    place = np.argsort(np.argsort(later, kind="stable"))
    return Layout(*(np.concatenate(parts)[place] for parts in columns))


def simulated(size: int, grown: float = 0.0) -> dict[str, float]:
    """Return the figures of a corpus of which nothing is written.

    Args:
        size: number of utterances.
        grown: share of them that was prepared later.
    """
    frames, tokens, trained = corpus(size)
    later = np.random.default_rng(1).random(size) < grown
    layout = grown_layout(frames, tokens, later).only(trained)
    frames, tokens = frames[trained], tokens[trained]
    generations = later[trained].astype(np.uint8) if later.any() else None
    first, second = (plan(frames, tokens, epoch, generations=generations) for epoch in (0, 1))
    batches = np.unique(np.linspace(0, len(first.offsets) - 2, LOOKED_AT).astype(np.int64))
    rows = [first.order[first.offsets[m] : first.offsets[m + 1]] for m in batches]
    return {
        **requests(layout, rows),
        "padded": padded(first, frames),
        "pairs_again": pairs_again(first, second),
    }


def requests(layout: Layout, batches: Sequence[np.ndarray]) -> dict[str, float]:
    """Return what micro-batches of these rows ask for."""
    spans = [span for rows in batches for span in joined(layout.places(rows))]
    wanted = np.concatenate(batches)
    return {
        "requests_per_utterance": len(spans) / len(wanted),
        "bytes_ratio": sum(s.end - s.begin for s in spans) / int(layout.length[wanted].sum()),
    }


def padded(made: EpochPlan, frames: np.ndarray) -> float:
    """Return the share of padding in the micro-batches' frames."""
    longest = np.maximum.reduceat(frames[made.order], made.offsets[:-1])
    return 1 - float(frames[made.order].sum() / (np.diff(made.offsets) * longest).sum())


def pairs_again(first: EpochPlan, second: EpochPlan) -> float:
    """Return the share of the pairs of one plan that another one has too."""
    a, b = micro_batches(first), micro_batches(second)
    return pairs(a * (int(b.max()) + 1) + b) / pairs(a)


def micro_batches(made: EpochPlan) -> np.ndarray:
    """Return the number of each row's micro-batch, int64 [n]; the fill does not count."""
    end = made.offsets[len(made.offsets) - 1 - made.fill]
    numbers = np.repeat(np.arange(len(made.offsets) - 1), np.diff(made.offsets))
    found = np.zeros(end, np.int64)
    found[made.order[:end]] = numbers[:end]
    return found


def pairs(groups: np.ndarray) -> int:
    """Return how many pairs are of one group, given each one's group."""
    counts = np.unique(groups, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


@dataclass
class Counter:
    """A WSGI application before another one, that counts the reads of shards."""

    app: Any
    requests: int = 0
    bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict, start_response: Any) -> Any:
        """Answer a request."""
        is_read = (
            environ["REQUEST_METHOD"] in ("GET", "HEAD") and "/shards/" in environ["PATH_INFO"]
        )

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            length = {name.lower(): value for name, value in headers}.get("content-length", "0")
            with self.lock:
                self.requests += is_read
                self.bytes += is_read * int(length)
            return start_response(status, headers, *rest)

        return self.app(environ, start)


def counted(size: int) -> dict[str, float]:
    """Write a corpus of small rows to an S3 server, and count what reading an epoch asks of it."""
    with s3_server(BUCKET, Counter) as (counter, _):
        uri = f"s3://{BUCKET}/{size}"
        manifest = written(uri, *corpus(size))
        data = DataConfig(shards=uri)
        spec = StreamSpec.of_new_run(data, manifest.digest, 0, G, segment_frames=0)
        made = schedule_of(spec).plan(0)
        reader = row_loader(spec).reader
        counter.requests = counter.bytes = 0
        for rows in np.split(made.order, made.offsets[1:-1]):
            reader.rows(manifest.located(rows))
        reader.close()
        lengths = manifest.columns.numbers("length")
        return {
            "requests_per_utterance": counter.requests / len(made.order),
            "bytes_ratio": counter.bytes / int(lengths[made.order].sum(dtype=np.int64)),
        }


def written(uri: str, frames: np.ndarray, tokens: np.ndarray, trained: np.ndarray) -> Manifest:
    """Write shards and manifest as the preparation does, of rows that hold little."""
    rows = [utterance(number, *own) for number, own in enumerate(zip(frames, tokens, strict=True))]
    order = strip_order(frames, tokens)
    entries = []
    for first in range(0, len(rows), ROWS_PER_SHARD):
        own = [rows[at] for at in order[first : first + ROWS_PER_SHARD]]
        shard = write_shard(uri, own)
        for number, row in enumerate(own):
            split = "train" if trained[int(row["id"])] else "validation"
            place = {"shard": shard, "row": number, "phones": len(row["phones"]), "split": split}
            entries.append({name: row.get(name) for name in COLUMNS.names} | place)
    table = with_ranges(uri, pa.Table.from_pylist(entries, COLUMNS))
    return write_manifest(uri, {"speakers": {"a": 0}, "spectrograms": False}, table)


def utterance(number: int, frames: int, phones: int) -> dict[str, Any]:
    """Return a row of a shard, without recording or features of use."""
    return {
        "id": f"{number:08}",
        "key": f"{number:032x}",
        "speaker": "a",
        "language": "EN",
        "text": "",
        "norm_text": "",
        "phones": ["a"] * int(phones),
        "tones": [0] * int(phones),
        "word2ph": [int(phones)],
        "audio": bytes(int(frames)),
        "samples": int(frames) * 512,
        "frames": int(frames),
        "bert": b"",
        "bert_width": 0,
        "spec": b"",
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.shard_requests",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of utterances")
    made.add_argument("--counted", type=int, default=COUNTED, help="utterances that are written")
    made.add_argument(
        "--grown", type=float, default=0.0, help="simulated share of them that was prepared later"
    )
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args(argv)
    result: dict[str, Any] = {"sizes": {}}
    for size in (args.counted, *args.sizes):
        result["sizes"][str(size)] = simulated(size, args.grown)
        show(f"{size} simulated", result["sizes"][str(size)])
    result["counted"] = {str(args.counted): counted(args.counted)}
    show(f"{args.counted} counted", result["counted"][str(args.counted)])
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


def show(what: str, figures: dict[str, float]) -> None:
    """Print figures in one line."""
    print(f"{what}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)


if __name__ == "__main__":
    main()
