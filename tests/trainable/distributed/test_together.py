"""What fails on one worker alone stops all of them, with the one's words."""

import json
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from trainable.distributed.collectives import on_all_ranks

FAILURES = {
    "nothing": {},
    "missing": {1: FileNotFoundError("no such folder: x")},
    "wrong": {1: ValueError("x holds no weights")},
    "all": {0: ValueError("first"), 1: FileNotFoundError("second")},
}


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
    Path(folder, f"{rank}.json").write_text(json.dumps(met))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def met(tmp_path_factory) -> list[dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("two")
    mp.start_processes(worker, (str(folder),), nprocs=2, start_method="spawn")
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
