"""A training as Ray Train runs it: its data, its trainer, and what each worker is given."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import ray

from data.corpus.prepare import prepare
from data.files import ascii_name
from data.shards.manifest import Manifest, ManifestError
from job.on_ray.cluster import on_cluster, takes_gpus, use_gpu
from job.on_ray.private import (
    FailureConfig,
    RayCheckpointConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from job.on_ray.process_group import ProcessGroupConfig
from job.on_ray.scaling import ElasticTrainer
from job.on_ray.storage import ray_storage
from job.on_ray.watching.metrics import RunMetrics
from job.on_ray.watching.trackers import trackers
from job.on_ray.worker import work
from job.settings.checks import check_trainable, trainable_manifest
from job.settings.cli import to_yaml
from job.settings.config import Config
from job.settings.description import code_version
from job.settings.paths import run_folder
from trainable.config import CheckpointConfig
from trainable.settings import check_fits
from trainable.worker.config import WorkerConfig

# One decodes over 500 s of audio per second (benchmarks.spectrograms). A GPU takes about as much,
# and from an object store a loader waits half of its time; a CPU takes some ten seconds per second.
LOADERS_PER_GPU = 2
CPU_WORKERS_PER_LOADER = 8


def ready_manifest(cfg: Config) -> Manifest | None:
    """Return the manifest of the shards; None if they are missing, and can be prepared.

    Raises:
        ManifestError: there are no shards, and no transcript to prepare them from.
        ValueError: shards and settings do not fit; names the keys.
    """
    try:
        return trainable_manifest(cfg)
    except ManifestError:
        if not cfg.data.transcript:
            raise
        return None


def prepared_manifest(cfg: Config) -> Manifest:
    """Return the manifest of the shards; prepare them first if they are missing.

    Raises:
        ManifestError: there are no shards, and no transcript to prepare them from.
        ValueError: shards and settings do not fit; names the keys.
    """
    if (ready := ready_manifest(cfg)) is not None:
        return ready
    print(f"{cfg.data.shards} holds no shards yet: preparing {cfg.data.transcript}")
    manifest = prepare(cfg.data)
    check_fits(cfg.data, cfg.model, manifest)
    check_trainable(cfg, manifest)
    return manifest


def settled(cfg: Config) -> Config:
    """Return the configuration with what follows from the cluster written out; Ray is up.

    So the run's folder and its checkpoints say how many loaders it has, and where its spectrograms
    are computed, which decides their last bits. A start elsewhere logs the difference.
    """
    data = cfg.data
    if data.spectrogram_on == "auto":
        # a GPU computes them in no time, and its loaders then send a third of the bytes
        on_gpu = takes_gpus(cfg, ray.cluster_resources().get("GPU", 0))
        data = replace(data, spectrogram_on="device" if on_gpu else "pipeline")
    if data.loaders == "auto":
        data = replace(data, loaders=loaders_for(cfg, ray.cluster_resources()))
    return replace(cfg, data=data)


def loaders_for(cfg: Config, resources: Mapping[str, float]) -> int:
    """Return how many loaders the workers of a run need, at most what the cluster has beside them.

    Args:
        cfg: the configuration.
        resources: resource -> amount, of the whole cluster.
    """
    low, high = cfg.scaling.bounds
    # the others' loaders have the rest
    resources = {name: amount * cfg.scaling.max_share for name, amount in resources.items()}
    cpus, gpus = (resources.get(name, 0) for name in ("CPU", "GPU"))
    gpu = takes_gpus(cfg, gpus)
    needed = high * LOADERS_PER_GPU if gpu else math.ceil(high / CPU_WORKERS_PER_LOADER)

    # a worker that comes later with its GPU brings its CPUs
    promised = min(high, max(low, int(gpus))) if gpu else high
    per_worker = cfg.scaling.cpus_per_worker
    own = [resources.get(name, 0) / each for name, each in cfg.scaling.loader_resources.items()]
    if on_cluster() and (cpus < low * per_worker + 1 or min(own, default=1) < 1):
        return needed  # what is up is no measure: the autoscaler starts the rest
    return max(1, min(needed, *map(math.floor, [cpus - promised * per_worker, *own])))


def trainer_of(cfg: Config, owner: str, callbacks: Sequence[UserCallback] = ()) -> ElasticTrainer:
    """Return Ray Train's trainer of a run; asks the cluster what it has.

    Args:
        cfg: the configuration.
        owner: who has claimed the run's folder (`trainable.run.storage.claim`).
        callbacks: called by Ray Train's controller.
    """
    low, high = cfg.scaling.bounds
    gpu = use_gpu(cfg)
    # Ray Train reads its environment when the trainer is made
    tune_ray_train(cfg)

    return ElasticTrainer(
        work,
        train_loop_config={"worker": worker_config(cfg, owner)},
        scaling_config=ScalingConfig(
            # a pair makes Ray Train choose its elastic policy
            num_workers=high if low == high else (low, high),
            use_gpu=gpu,
            resources_per_worker=resources_per_worker(cfg, gpu),
            elastic_resize_monitor_interval_s=cfg.scaling.resize_interval_s,
        ),
        torch_config=ProcessGroupConfig(
            "nccl" if gpu else "gloo",
            timeout_s=math.ceil(cfg.scaling.collective_timeout_s),
            train=cfg.train,
        ),
        run_config=run_config(cfg, callbacks),
        max_share=cfg.scaling.max_share,
        watchers=[RunMetrics(cfg.run.name), *trackers(cfg)],
    )


def run_config(cfg: Config, callbacks: Sequence[UserCallback]) -> RunConfig:
    """Return Ray Train's settings of a run: its files lie in the run's folder.

    Ray's own names are short and ASCII, and a run's name is neither. So the run has a stand-in on
    the cluster once its folder is settled.
    """
    filesystem, path = ray_storage(cfg.run.storage)
    made = RunConfig(
        name=cfg.run.name,
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=FailureConfig(max_failures=cfg.scaling.max_failures),
        checkpoint_config=ranking(cfg.train.checkpoint),
        callbacks=list(callbacks),
    )
    # made once, and kept: here the folder is settled
    _ = made.storage_context
    made.name = ascii_name(cfg.run.name)
    return made


def ranking(checkpoint: CheckpointConfig) -> RayCheckpointConfig:
    """Return how Ray Train ranks checkpoints. It removes none: the workers do, and list the rest.

    Args:
        checkpoint: what the workers keep.
    """
    if not checkpoint.keep_best:
        return RayCheckpointConfig()
    return RayCheckpointConfig(
        checkpoint_score_attribute=checkpoint.metric,
        checkpoint_score_order="max" if checkpoint.larger_is_better else "min",
    )


def resources_per_worker(cfg: Config, gpu: bool) -> dict[str, float]:
    """Return what Ray reserves for each worker: resource -> amount."""
    gpus = {"GPU": 1.0} if gpu else {}
    return {"CPU": cfg.scaling.cpus_per_worker, **gpus, **cfg.scaling.worker_resources}


def tune_ray_train(cfg: Config) -> None:
    """Set those settings of Ray Train that it reads from the environment.

    What the user has set in the environment takes precedence.
    """
    scaling = cfg.scaling
    variables = {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": scaling.health_poll_s,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": scaling.start_timeout_s,
        # the controller's looks; the workers look themselves (trainable/worker/preemption.py)
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": scaling.notice_poll_s / 2,
        # for a worker that does not answer at all: the others' report comes first
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": scaling.collective_timeout_s,
    }
    if on_cluster():
        # runs are shown by the dashboard, which a local Ray lacks
        variables["RAY_TRAIN_ENABLE_STATE_TRACKING"] = 1
    for name, value in variables.items():
        os.environ.setdefault(name, str(value))


def worker_config(cfg: Config, owner: str) -> WorkerConfig:
    """Return what each worker is given.

    Args:
        cfg: the configuration.
        owner: who has claimed the run's folder.
    """
    return WorkerConfig(
        data=cfg.data,
        model=cfg.model,
        train=cfg.train,
        eval=cfg.eval,
        folder=run_folder(cfg),
        threads=cfg.scaling.threads_per_worker,
        notice_poll_s=cfg.scaling.notice_poll_s,
        health_poll_s=cfg.scaling.health_poll_s,
        collective_timeout_s=cfg.scaling.collective_timeout_s,
        loader_resources=cfg.scaling.loader_resources,
        owner=owner,
        config_yaml=to_yaml(cfg),
        code_version=code_version(),
    )
