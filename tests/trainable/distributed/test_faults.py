"""Which errors of a worker would come again in any start, and how they are told."""

import errno

import pytest
import ray.exceptions
import torch
from ray.train import PreemptionInfo

from data.files import StorageError, UnreachableError
from trainable.distributed.faults import PermanentError, is_permanent, permanent_errors_named
from trainable.worker.preemption import PreemptedError

PERMANENT = [
    ValueError("train.x is y"),
    TypeError("unsupported operand"),
    KeyError("emb_g"),
    ZeroDivisionError("division by zero"),
    IndexError("list index out of range"),
    AssertionError(),
    NotImplementedError("no such kernel"),
    ImportError("no module"),
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "models/base"),
    PermissionError(errno.EACCES, "Permission denied", "x"),
]
OF_A_NODE_OR_STORAGE = [
    OSError(errno.ENOSPC, "No space left on device"),
    StorageError("s3://b cannot be written"),
    UnreachableError("s3://b cannot be reached"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    TimeoutError("timed out"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    torch.distributed.DistBackendError("NCCL error"),
    RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:1234"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    ray.exceptions.NodeDiedError("the node is gone"),
    PreemptedError(PreemptionInfo(0, {})),
]


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_an_error_that_would_come_again_is_permanent(error):
    assert is_permanent(error)
    with pytest.raises(PermanentError) as raised, permanent_errors_named():
        raise error
    assert raised.value.__cause__ is error
    assert str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", OF_A_NODE_OR_STORAGE, ids=repr)
def test_what_a_node_or_a_storage_did_may_be_tried_again(error):
    assert not is_permanent(error)
    with pytest.raises(type(error)) as raised, permanent_errors_named():
        raise error
    assert raised.value is error


def test_an_error_that_is_no_users_says_where_it_came_from():
    told = r"^TypeError: a b \(tests/\S+test_faults\.py:\d+\)$"
    with pytest.raises(PermanentError, match=told), permanent_errors_named():
        raise TypeError("a\nb")
