"""Train a voice, or continue: `python -m job.train --config job/presets/demo.yaml [--section.key VALUE ...]`."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

import fsspec
from ray.train import CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig

from data.manifest import Manifest, ManifestError, read_manifest
from data.prepare import prepare
from job.cli import parse, parser, run, to_yaml
from job.cluster import on_cluster, ray_session, use_gpu
from job.config import Config
from job.console import follow
from job.paths import run_folder, with_absolute_paths
from job.scaling import ElasticTrainer
from trainable.state import check_sizes
from trainable.storage import newest_good
from trainable.worker import WorkerConfig, check_fits, log_path, train_loop


def main(argv: Sequence[str]) -> int:
    """The command."""
    cfg, _ = parse(parser("python -m job.train", "Train a voice, or continue the run of this name."), argv)
    train(cfg)
    return 0


def train(cfg: Config) -> Result:
    """Prepare what is missing, then train until train.max_steps; continues the run of the same name.

    Raises:
        ValueError: settings that do not fit; names the keys.
    """
    cfg = with_absolute_paths(cfg)
    check(cfg)
    with ray_session(cfg):
        manifest = manifest_of(cfg)
        worker = worker_config(cfg)
        check_fits(worker, manifest)
        save_description(cfg)
        low, high = cfg.scaling.bounds
        gpu = use_gpu(cfg)
        tune_ray_train(cfg)
        trainer = ElasticTrainer(
            train_loop,  # type: ignore[arg-type]
            train_loop_config={"worker": worker},
            scaling_config=ScalingConfig(
                num_workers=high if low == high else (low, high),  # type: ignore[arg-type]
                use_gpu=gpu,
                resources_per_worker=resources_per_worker(cfg, gpu),
                elastic_resize_monitor_interval_s=cfg.scaling.resize_interval_s,
            ),
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            run_config=RunConfig(
                name=cfg.run.name,
                storage_path=cfg.run.storage,
                checkpoint_config=CheckpointConfig(num_to_keep=cfg.train.checkpoint.keep),
                failure_config=FailureConfig(max_failures=cfg.scaling.max_failures),
            ),
        )
        # Ray forwards the workers' output only from a cluster; on one machine rank 0's log is followed.
        shown = contextlib.nullcontext() if on_cluster() else follow(log_path(run_folder(cfg), 0))
        with shown:
            result = trainer.fit()
    outcome = result.return_value  # type: ignore[attr-defined]
    if "error" in outcome:
        raise ValueError(outcome["error"])
    print(summary(cfg, outcome["step"]))
    return result


def resources_per_worker(cfg: Config, gpu: bool) -> dict[str, float]:
    """What Ray reserves for each worker."""
    return {"CPU": cfg.scaling.cpus_per_worker, **({"GPU": 1} if gpu else {}), **cfg.scaling.worker_resources}


def tune_ray_train(cfg: Config) -> None:
    """Hand Ray Train those settings that it reads from the environment; what the user has set there counts."""
    scaling = cfg.scaling
    for name, value in {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": scaling.health_poll_s,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": scaling.start_timeout_s,
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": scaling.notice_poll_s / 2,
    }.items():
        os.environ.setdefault(name, str(value))


def check(cfg: Config) -> None:
    """Refuse what cannot train, before anything starts.

    Raises:
        ValueError: names the keys.
    """
    check_sizes(cfg.model, cfg.train, cfg.data)
    run_folder(cfg)
    _, high = cfg.scaling.bounds
    G = cfg.train.micro_batches_per_step
    if high > G:
        raise ValueError(
            f"scaling.num_workers {high} is more than the plan can feed: a global step has "
            f"train.micro_batches_per_step {G} micro-batches; raise it, or lower the number of workers"
        )


def manifest_of(cfg: Config) -> Manifest:
    """The prepared data; prepares it first where a transcript is given and shards are missing."""
    try:
        return read_manifest(cfg.data.shards)
    except ManifestError:
        if not cfg.data.transcript:
            raise
        print(f"{cfg.data.shards} holds no shards yet: preparing {cfg.data.transcript}")
        return prepare(cfg.data)


def worker_config(cfg: Config) -> WorkerConfig:
    """What each worker is told."""
    return WorkerConfig(
        data=cfg.data,
        model=cfg.model,
        train=cfg.train,
        eval=cfg.eval,
        folder=run_folder(cfg),
        threads=cfg.scaling.threads_per_worker,
        notice_poll_s=cfg.scaling.notice_poll_s,
        config_yaml=to_yaml(cfg),
        code_version=code_version(),
    )


def code_version() -> str:
    """Digest of the source of the packages: works in a checkout and in what `ray job submit` uploads."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(p for package in ("data", "trainable", "job") for p in (root / package).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def save_description(cfg: Config) -> None:
    """Save the resolved configuration, the code version and the environment in the run's folder."""
    fs, root = fsspec.core.url_to_fs(run_folder(cfg))
    fs.makedirs(root, exist_ok=True)
    packages = {d.metadata["Name"]: d.version for d in distributions()}
    description = {"code_version": code_version(), "packages": dict(sorted(packages.items()))}
    fs.pipe_file(f"{root}/config.yaml", to_yaml(cfg).encode())
    fs.pipe_file(f"{root}/environment.json", json.dumps(description, indent=1).encode())


def summary(cfg: Config, step: int) -> str:
    """Where everything is, at a run's end."""
    folder = run_folder(cfg)
    shown = {
        "shards": cfg.data.shards,
        "checkpoint": newest_good(folder) or "none",
        "metrics": f"{folder}/metrics.jsonl",
        "logs": f"{folder}/logs",
        "TensorBoard": f"{folder}/tensorboard  (tensorboard --logdir {folder})",
        "audio": f"{folder}/tensorboard/eval (tab Audio), or python -m job.synthesize --checkpoint {folder} ...",
    }
    return "\n".join(
        [f"run {cfg.run.name}: step {step} of {cfg.train.max_steps}", *(f"  {k:12} {v}" for k, v in shown.items())]
    )


if __name__ == "__main__":
    run(main)
