"""Batches of a temporary file as a dataset of Ray Data, and the tables that come of it."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import Block
from ray.exceptions import OutOfMemoryError, RayActorError, WorkerCrashedError

from data.corpus.progress import Progress
from data.corpus.tables.files import TableFile, packed, read_batches, unpacked
from data.gpu import gpu_trouble
from data.ray_source import read_here

ROOM_WITHIN_S = 5.0  # a cluster that has what is asked for gives it by then
# less than one: a machine with a single logical CPU must hold an actor and what it feeds
TASK_CPUS = 0.5
RESTARTS = 3  # of an actor, or of a task, whose process has died


class PreparationError(ValueError):
    """Preparation cannot continue, whatever the lines say; what was written is kept."""


class DiedError(PreparationError):
    """A process died, and was not or cannot be started again."""


def resource(name: str) -> float:
    """Return how much the cluster has of CPU or GPU."""
    return ray.cluster_resources().get(name, 0)


def wait_for_room(kind: str, amount: float) -> None:
    """Wait until the cluster has something free; say so if other jobs hold it for long.

    Args:
        kind: CPU or GPU.
        amount: how much of it one process will take.
    """
    full = ray.available_resources().get(kind, 0) < amount
    wanted = {"num_cpus": 0, "num_gpus": 0} | {f"num_{kind.lower()}s": amount}
    asked = ray.remote(_nothing).options(**wanted).remote()
    _, waiting = ray.wait([asked], timeout=ROOM_WITHIN_S)
    if waiting and full:
        there = resource(kind)
        held = f"other jobs hold those of this cluster, {there:g}" if there else "none is up yet"
        print(f"waits for a {kind}: {held} (`ray status` tells more)", flush=True)
    ray.get(asked)


def model_resources(
    what: str, gpu_share: float = 1, needs_torch: bool = True
) -> tuple[float, float, int]:
    """Return CPUs and GPUs per actor that holds a model, and the number of actors.

    What comes of it is the same, so a GPU that is of no use is told, and no reason to refuse.

    Args:
        what: the model, for the message.
        gpu_share: share of a GPU that each takes.
        needs_torch: whether it is torch that has to find the GPU.
    """
    gpus = int(resource("GPU"))
    if gpus:
        wait_for_room("GPU", gpu_share)
        look = ray.remote(gpu_trouble).options(num_cpus=0, num_gpus=gpu_share)
        trouble = ray.get(look.remote()) if needs_torch else ""
        if not trouble:
            return TASK_CPUS, gpu_share, gpus * int(1 / gpu_share)
        print(f"warning: {what} runs on the CPU. Ray has GPUs, but {trouble}", flush=True)
    # few actors with several threads: a large model takes over 1 GB in each
    cpus = min(4, resource("CPU") // 2) or TASK_CPUS
    return cpus, 0, int(max(1, resource("CPU") // (2 * cpus)))


def _nothing() -> None:
    """Take room, and be done."""


class OfBlocks:
    """Applies an object that maps tables to packed ones.

    Args:
        make: makes the object.
        *args: of it.
    """

    def __init__(self, make: Callable[..., Callable[[pa.Table], pa.Table]], *args: Any) -> None:
        self.function = make(*args)

    def __call__(self, row: pa.Table) -> pa.Table:
        """Return the result of a packed table, packed."""
        return of_block(self.function, row)


def of_block(function: Callable[[pa.Table], pa.Table], row: pa.Table) -> pa.Table:
    """Return a function's result of a packed table, packed."""
    return packed(function(unpacked(row)))


def dataset_of(blocks: TableFile) -> ray.data.Dataset:
    """Return a dataset of the batches of a file on this node, once there is a CPU for it."""
    # max_restarts and max_retries, which decide what happens when a process dies, have no other way
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
    wait_for_room("CPU", 1)
    return read_here(partial(_read, blocks.path, blocks.count))


def _read(path: str, count: int) -> Iterator[Block]:
    """Yield the batches of a file, packed."""
    yield from map(packed, read_batches(path, count))


def results(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """Run a dataset of packed tables; yield them.

    Raises:
        DiedError: processes died too often.
    """
    _quieten(dataset)
    blocks = dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0)
    try:
        yield from map(unpacked, blocks)
    except (RayActorError, WorkerCrashedError, OutOfMemoryError) as error:
        raise DiedError(
            f"a process of the preparation died {RESTARTS + 1} times ({_first_line(error)}): see "
            "whether the memory suffices, then run python -m job.prepare again: it keeps what is "
            "finished"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def run_pass(what: str, rows: int, found: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables, with a look at their column `problem`, and tell how far they are.

    Args:
        what: name of the work.
        rows: number of rows of all tables.
        found: the tables.

    Raises:
        PreparationError: the first `problem` among the rows.
    """
    with contextlib.closing(Progress(what, rows)) as progress:
        for table in found:
            problems = table.column("problem").drop_null()
            if len(problems):
                raise PreparationError(problems[0].as_py())
            yield table
            progress.advance(table.num_rows)


def _quieten(dataset: ray.data.Dataset) -> None:
    """Switch off Ray Data's own progress, which `Progress` shows more briefly."""
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # it warns that there are no bars
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
