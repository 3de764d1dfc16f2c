"""A rank's rows of a dataset: which steps it takes of it, and which it loads itself."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from ray.exceptions import RayError

from data.stream.datasets import DatasetError, DatasetRows
from data.stream.loading import Loaded
from data.stream.packing import pack, step_of

TURNS = 2


def rows(first: int, end: int) -> Iterator[pa.Table]:
    for step in range(first, end):
        for turn in range(TURNS):
            yield pack({"step": step, "slot": turn}, Loaded({}))


def opened(made: Callable[[], Iterator[pa.Table]]) -> DatasetRows:
    """A dataset whose first step, or error, has arrived."""
    dataset = DatasetRows(0, lambda number: (number, made()), TURNS)
    deadline = time.monotonic() + 10
    while not dataset.steps.full():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return dataset


def steps(taken: list[pa.Table] | None) -> list[int] | None:
    return None if taken is None else [step_of(row) for row in taken]


@pytest.mark.processes
def test_what_orders_reads_and_splits_the_rows_needs_no_torch():
    """These are processes of their own on each node, and torch takes seconds and 250 MB of each."""
    script = "import sys, data.stream.datasets; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_dataset_that_is_not_open_is_not_waited_for():
    begins = threading.Event()

    def late(number: int) -> tuple[int, Iterator[pa.Table]]:
        begins.wait(10)
        return number, rows(3, 5)

    dataset = DatasetRows(0, late, TURNS)
    assert dataset.take(0) is None
    begins.set()
    while not dataset.steps.full():
        time.sleep(0.001)
    assert dataset.take(2) is None  # it begins behind this step
    assert steps(dataset.take(3)) == [3] * TURNS
    assert steps(dataset.take(4)) == [4] * TURNS  # waited for, from now on
    assert dataset.take(5) is None
    assert dataset.ended


def test_steps_that_the_rank_has_loaded_itself_are_passed_over():
    dataset = opened(lambda: rows(0, 9))
    deadline = time.monotonic() + 10
    while (taken := dataset.take(6)) is None:  # as they come
        assert time.monotonic() < deadline
    assert steps(taken) == [6] * TURNS
    assert dataset.begin == 6


def test_a_rank_that_goes_on_meets_its_dataset():
    """Rows come as fast as the rank takes steps, some steps late."""

    def late() -> Iterator[pa.Table]:
        for row in rows(0, 1000):
            yield row
            if step_of(row) > 5:
                time.sleep(0.001)

    dataset = opened(late)
    for step in range(6, 200):
        if dataset.take(step) is not None:
            break
        time.sleep(0.01)
    assert dataset.reached
    assert step < 40


def test_an_error_comes_behind_the_steps_before_it():
    def fails() -> Iterator[pa.Table]:
        yield from rows(0, 1)
        raise RayError("the node is gone")

    dataset = opened(fails)
    assert steps(dataset.take(0)) == [0] * TURNS
    with pytest.raises(DatasetError, match="the node is gone"):
        dataset.take(1)


def test_another_order_of_the_rows_ends_the_run():
    dataset = opened(lambda: iter([*rows(4, 5), *rows(3, 4)]))
    assert steps(dataset.take(4)) == [4] * TURNS
    with pytest.raises(AssertionError, match="changed the order"):
        dataset.take(5)


def test_a_closed_dataset_keeps_nobody_waiting():
    goes_on = threading.Event()

    def waits() -> Iterator[pa.Table]:
        yield from rows(0, 1)
        goes_on.wait(10)

    dataset = opened(waits)
    dataset.take(0)
    threading.Timer(0.1, dataset.close).start()
    begin = time.monotonic()
    assert dataset.take(1) is None
    assert time.monotonic() - begin < 5
    goes_on.set()
