"""What Ray Train's controller is told when something has failed."""

# A worker's error, that of a list of checkpoints that does not fit its folder, and that of workers
# for which there was no room in time.
from ray.train.v2._internal.exceptions import (
    CheckpointManagerInitializationError,
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
)

from job.on_ray.private.releases import needs

needs(UserExceptionWithTraceback, "_base_exc")

__all__ = [
    "CheckpointManagerInitializationError",
    "UserExceptionWithTraceback",
    "WorkerGroupStartupTimeoutError",
    "raised_by_worker",
]


def raised_by_worker(failure: Exception) -> BaseException:
    """Return the error that a worker has raised, from what its controller was told."""
    return failure._base_exc if isinstance(failure, UserExceptionWithTraceback) else failure
