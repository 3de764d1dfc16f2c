"""Ray Data executes the schedule: every worker gets its micro-batches, from any position."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import pytest
import ray

from data.plan.epoch_plan import Position
from data.stream.collectives import alone
from data.stream.micro_batches import MicroBatchStream
from data.stream.spec import StreamSpec, schedule_of
from tests.data.stream.corpus import G, make_corpus
from tests.data.stream.ranks import expected, take, wait_for_ray_data


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> StreamSpec:
    return make_corpus(str(tmp_path_factory.mktemp("shards")))


@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_any_number_of_workers_gets_the_plan(spec, world_size, caplog):
    steps = 8 * schedule_of(spec).plan(0).steps + 1  # over epoch ends
    with caplog.at_level("INFO"):
        assert take(spec, Position(), steps, world_size) == expected(spec, Position(), steps)
    assert caplog.text.count("Ray Data loads the micro-batches from here on") == world_size


@pytest.mark.usefixtures("ray_local")
def test_a_stream_opens_at_any_position_and_over_several_datasets(spec, monkeypatch, caplog):
    """In two groups of ranks."""
    monkeypatch.setattr("data.stream.orders.RANKS_PER_DATASET", 2)
    monkeypatch.setattr("data.stream.datasets.MICRO_BATCHES_PER_DATASET", 8)
    spec = replace(spec, data=replace(spec.data, loaders=2))
    schedule = schedule_of(spec)
    first = schedule.after(schedule.after(Position()))
    with caplog.at_level("INFO"):
        assert take(spec, first, 14, 3) == expected(spec, first, 14)
    assert caplog.text.count("Ray Data loads the micro-batches from here on") >= 3


@pytest.mark.usefixtures("ray_local")
def test_a_stopped_stream_leaves_room_for_another(spec):
    """As after a roll-back: the loaders of either take all of the CPUs that are left."""
    wait_for(lambda: not processes("SplitCoordinator", "Orders"))  # of the tests before
    with cpus_taken(ray.cluster_resources()["CPU"] - 2):
        stops_and_starts(spec)


def stops_and_starts(spec: StreamSpec) -> None:
    spec = replace(spec, data=replace(spec.data, loaders=2, prefetch_steps=6))
    stream = MicroBatchStream(spec, Position(), 40, 0, 1, alone)
    steps = iter(stream)
    first = Position()
    for _ in range(3):
        next(steps)
        first = schedule_of(spec).after(first)
    wait_for(lambda: len(processes("SplitCoordinator", "Orders")) == 2)

    stream.stop()
    assert take(spec, first, 15, 2) == expected(spec, first, 15)
    wait_for(
        lambda: (
            ray.available_resources().get("CPU", 0) == 2
            and not processes("SplitCoordinator", "Orders")
        )
    )


@pytest.mark.usefixtures("ray_local")
def test_a_stream_outlives_its_dataset(spec, caplog, monkeypatch):
    """As on a node that is going, where Ray places nothing any more; then Ray Data is back."""
    monkeypatch.setattr("data.stream.datasets.RETRY_S", 0.0)
    stream = MicroBatchStream(spec, Position(), 40, 0, 1, alone)
    taken = []
    with caplog.at_level("INFO"):
        for step, micro_batches in enumerate(stream):
            taken.append({m.slot: m.batch.rows.tolist() for m in micro_batches})
            if step == 7:
                ray.kill(stream.datasets.executions[-1])
            if step in (1, 25):
                wait_for_ray_data(stream)
    assert taken == expected(spec, Position(), 40)
    assert caplog.text.count("this worker reads its shards itself") == 1
    assert caplog.text.count("Ray Data loads the micro-batches from here on") == 2


@contextlib.contextmanager
def cpus_taken(cpus: float) -> Iterator[None]:
    """Have another job take CPUs."""
    other = ray.remote(Holder).options(num_cpus=cpus).remote()
    ray.get(other.holds.remote())
    yield
    ray.kill(other)


class Holder:
    """A process of another job."""

    def holds(self) -> bool:
        return True


def wait_for(reached: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, f"still there: {processes('')}"
        time.sleep(0.2)


def processes(*names: str) -> list[str]:
    """Ray's processes below this one that have one of these names."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            found.append(process.name())
    return [
        name for name in found if name.startswith("ray::") and any(part in name for part in names)
    ]


def test_more_workers_than_micro_batches_are_refused(spec):
    with pytest.raises(ValueError, match=r"train\.micro_batches_per_step"):
        MicroBatchStream(spec, Position(), 1, 0, G + 1, alone)


def test_another_manifest_is_refused(spec):
    with pytest.raises(ValueError, match="prepared again"):
        schedule_of(replace(spec, digest="0" * 64))


def test_shards_without_spectrograms_are_refused_where_they_are_asked_for(spec):
    with pytest.raises(ValueError, match=r"data\.spectrogram_on is shards"):
        schedule_of(replace(spec, data=replace(spec.data, spectrogram_on="shards")))
