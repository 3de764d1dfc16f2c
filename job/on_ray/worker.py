"""What Ray Train runs on each worker, by a name that costs no imports to hand on."""

from typing import Any


def work(config: dict) -> dict[str, Any]:
    """Train as one of the workers; see trainable.worker.train.

    The driver and Ray Train's controller only hand this function on: they do without the networks,
    TensorBoard and plots, whose imports take seconds.

    Args:
        config: `worker` is a WorkerConfig.
    """
    from job.on_ray.storage import write_checkpoint_list
    from job.on_ray.watching.quiet import quieten
    from trainable.worker.train import train_loop

    quieten()
    return train_loop(config["worker"], write_checkpoint_list)
