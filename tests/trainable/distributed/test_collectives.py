"""What workers do together; what fails on one worker alone stops all of them, with its words."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.processes import run_in_processes
from trainable.distributed.collectives import (
    all_gather,
    all_gather_rows,
    broadcast,
    gather_on_rank_zero,
    on_all_ranks,
)

pytestmark = pytest.mark.processes

FAILURES = {
    "nothing": {},
    "missing": {1: FileNotFoundError("no such folder: x")},
    "wrong": {1: ValueError("x holds no weights")},
    "all": {0: ValueError("first"), 1: FileNotFoundError("second")},
}
CPU = torch.device("cpu")


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    met = {}
    for name, failures in FAILURES.items():

        def action(failures=failures) -> int:
            if rank in failures:
                raise failures[rank]
            return rank

        try:
            met[name] = ["returned", str(on_all_ranks(action, 0.0))]
        except (OSError, ValueError) as error:
            met[name] = [type(error).__name__, str(error)]

    met["broadcast"] = broadcast(f"of {rank}")
    met["all_gather"] = all_gather(f"of {rank}")
    met["gather_on_rank_zero"] = gather_on_rank_zero(f"of {rank}")
    own = {rank: torch.tensor([rank + 0.5, rank + 1.5])}
    met["all_gather_rows"] = all_gather_rows(own, 3, 2, CPU).tolist()
    Path(folder, f"{rank}.json").write_text(json.dumps(met))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def met(tmp_path_factory) -> list[dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("two")
    run_in_processes(worker, str(folder), count=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_each_gets_its_own_result(met):
    assert [each["nothing"] for each in met] == [["returned", "0"], ["returned", "1"]]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("missing", "StorageError", "no such folder: x (rank 1, on "),
        ("wrong", "ValueError", "x holds no weights (rank 1, on "),
        ("all", "ValueError", "first"),
    ],
)
def test_all_hear_of_the_first_failure(met, name, kind, said):
    assert met[0][name] == met[1][name]
    assert met[0][name][0] == kind
    assert met[0][name][1].startswith(said)
    assert ("not on all" in met[0][name][1]) == (name != "all")


def test_objects_travel(met):
    assert [each["broadcast"] for each in met] == ["of 0", "of 0"]
    assert [each["all_gather"] for each in met] == [["of 0", "of 1"]] * 2
    assert [each["gather_on_rank_zero"] for each in met] == [["of 0", "of 1"], []]


def test_rows_make_one_table(met):
    assert [each["all_gather_rows"] for each in met] == [[[0.5, 1.5], [1.5, 2.5], [0.0, 0.0]]] * 2


def test_a_worker_alone_needs_no_process_group():
    assert broadcast("mine") == "mine"
    assert all_gather("mine") == ["mine"]
    assert gather_on_rank_zero("mine") == ["mine"]
    assert on_all_ranks(lambda: "mine", 0.0) == "mine"
    assert all_gather_rows({1: torch.ones(2)}, 2, 2, CPU).tolist() == [[0, 0], [1, 1]]
