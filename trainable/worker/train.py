"""What Ray Train runs on each worker."""

import logging
from typing import Any

from data.files import StorageError
from data.stream.damage import BadRowsError
from trainable.distributed.collectives import collective
from trainable.distributed.faults import permanent_errors_named
from trainable.learning.not_finite import NotFiniteError
from trainable.run.heartbeat import STOPPED, write_status
from trainable.run.storage import WriteList, write_no_list
from trainable.worker.config import WorkerConfig
from trainable.worker.loop import TrainingLoop
from trainable.worker.preemption import StoppedError
from trainable.worker.ray_worker import RayWorker
from trainable.worker.setup import set_up

log = logging.getLogger("bert_vits2_ray")


@collective
def train_loop(cfg: WorkerConfig, write_list: WriteList = write_no_list) -> dict[str, Any]:
    """Train until `train.max_steps`, from the newest checkpoint on.

    Args:
        cfg: what the worker is told.
        write_list: writes the run's list of checkpoints.

    Returns:
        `step`, where the run stands, and `stopped` if it was stopped there; or `error`, if it
        cannot continue in any number of attempts, the same on all workers.

    Raises:
        PermanentError: this worker alone, perhaps, cannot continue: the run is given up.
        Exception: whatever else goes wrong; Ray Train starts the workers again.
    """
    with permanent_errors_named():
        try:
            loop = set_up(cfg, RayWorker(cfg), write_list)
        except (ValueError, StorageError) as error:
            log.error("%s", error)
            return {"error": str(error)}
        return run_to_end(loop)


@collective
def run_to_end(loop: TrainingLoop) -> dict[str, Any]:
    """Run a loop; see `train_loop` for what it returns."""
    outcome: dict[str, Any] = {}
    try:
        try:
            loop.train_to_end()
        except StoppedError:
            outcome["stopped"] = True
            tell_that_it_stopped(loop)
        except BadRowsError:  # between two steps: the state is good
            loop.checkpoints.save_now()
            raise
    except (NotFiniteError, StorageError, BadRowsError) as error:
        log.error("%s", error)
        return {"error": str(error)}
    finally:
        loop.checkpoints.close()
    return {"step": loop.state.position.step, **outcome}


def tell_that_it_stopped(loop: TrainingLoop) -> None:
    """Note in the run's folder that it is stopped: the driver may be gone, which would note it."""
    if loop.worker.rank == 0:
        write_status(loop.cfg.folder, loop.cfg.owner, STOPPED, loop.state.position.step)
