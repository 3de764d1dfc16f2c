"""What DDP's wrapper is told."""

import pytest
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainable.config import TrainConfig
from trainable.distributed.wrapping import ddp_settings


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.medium
@pytest.mark.parametrize(("given", "bytes_sent"), [({}, 25 * 2**20), ({"ddp_bucket_mb": 2}, 2**21)])
def test_the_size_of_a_bucket_is_that_of_the_configuration(alone, given, bytes_sent):
    wrapped = DistributedDataParallel(nn.Linear(2, 2), **ddp_settings(TrainConfig(**given)))
    assert wrapped.bucket_bytes_cap == bytes_sent
