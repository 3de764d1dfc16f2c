"""What one worker finds and all must know."""

import time
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from trainable.distributed.agreement import Agreement


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    agree, done = Agreement(timeout_s=2.0), Path(folder, "done")
    assert agree("" if rank == 0 else "torn") == "torn"
    assert agree("") == ""
    if rank == 0:
        begin = time.monotonic()
        with pytest.raises(RuntimeError):
            agree("")
        done.write_text(str(time.monotonic() - begin))
    while not done.exists():  # hangs elsewhere
        time.sleep(0.1)


def test_an_error_reaches_all_and_nobody_waits_longer_than_told(tmp_path):
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    assert float((tmp_path / "done").read_text()) < 30
