"""What one worker finds and all must know."""

import os
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.processes import run_in_processes
from trainable.distributed.agreement import Agreement

pytestmark = pytest.mark.processes

TIMEOUT_S = 8.0  # a busy machine may hold a process up for seconds


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    # under the default group's timeout: the other process may still be importing torch
    dist.barrier()
    agreement = Agreement(TIMEOUT_S)
    done = Path(folder, "done")

    assert agreement.first_error("" if rank == 0 else "torn") == "torn"
    assert agreement.first_error("") == ""
    if rank == 0:
        begin = time.monotonic()
        with pytest.raises(RuntimeError):
            agreement.first_error("")
        done.write_text(str(time.monotonic() - begin))
    while not done.exists():  # hangs elsewhere
        time.sleep(0.1)
    # gloo's threads may abort a process that ends with a group that has failed
    os._exit(0)


def test_an_error_reaches_all_and_nobody_waits_longer_than_told(tmp_path):
    run_in_processes(worker, str(tmp_path), count=2)
    assert float((tmp_path / "done").read_text()) < TIMEOUT_S + 30


def test_a_worker_alone_agrees_with_itself():
    agreement = Agreement(TIMEOUT_S)
    assert agreement.first_error("torn") == "torn"
    assert agreement.first_error("") == ""
