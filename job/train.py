"""Train a voice, or continue: `python -m job.train --config job/presets/demo.yaml [--section.key VALUE ...]`."""

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

import yaml
from ray.train import Result

# what ray.train gives at run time; named so for mypy, which sees Train V1 there
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig

from data.corpus.prepare import prepare
from data.files import below, is_local, keep_trying, put_file, read_file
from data.shards.manifest import Manifest, ManifestError, read_manifest
from job.on_ray.cluster import on_cluster, ray_session, use_gpu
from job.on_ray.process_group import ProcessGroupConfig
from job.on_ray.scaling import ElasticTrainer
from job.on_ray.storage import forget_checkpoint_list, ray_storage
from job.reports.console import follow
from job.settings.cli import parse, parser, run, to_yaml
from job.settings.config import Config
from job.settings.paths import run_folder, with_absolute_paths
from trainable.evaluation.evaluate import check_metric
from trainable.learning.judgement import gives_up
from trainable.learning.state import check_sizes
from trainable.run.format import step_of
from trainable.run.logs import earlier_log
from trainable.run.storage import checkpoints, claim, newest_good, read_state
from trainable.settings import check_fits
from trainable.worker.loop import WorkerConfig, train_loop

REPORT_S = 60  # between the time that workers say where they hang and the end of what they hang in


def main(argv: Sequence[str]) -> int:
    """The command."""
    cfg, _ = parse(
        parser("python -m job.train", "Train a voice, or continue the run of this name."), argv
    )
    train(cfg)
    return 0


def train(cfg: Config, callbacks: Sequence[UserCallback] = ()) -> Result | None:
    """Prepare what is missing, then train until train.max_steps; continues the run of the same name.

    Args:
        cfg: the configuration.
        callbacks: Ray Train's, which its controller calls.

    Returns:
        Ray Train's result, or None where the run was finished before: a job that is submitted again
        changes nothing.

    Raises:
        ValueError: settings that do not fit; names the keys.
        OSError: the run's folder cannot be read or written.
    """
    cfg = with_absolute_paths(cfg)
    check(cfg)
    retry_s = cfg.train.checkpoint.retry_s
    if keep_trying(lambda: is_finished(cfg), retry_s):
        print(summary(cfg, cfg.train.max_steps))
        return None
    with ray_session(cfg):
        manifest = manifest_of(cfg)
        check_fits(cfg.data, cfg.model, manifest)
        keep_trying(lambda: save_description(cfg), retry_s)
        trainer = trainer_of(cfg, keep_trying(lambda: claim(run_folder(cfg)), retry_s), callbacks)
        # Ray forwards the workers' output only from a cluster; on one machine rank 0's log is
        # followed.
        log = (
            None if on_cluster() else keep_trying(lambda: earlier_log(run_folder(cfg), 0), retry_s)
        )
        with contextlib.nullcontext() if log is None else follow(log):
            result = trainer.fit()
    outcome = result.return_value  # type: ignore[attr-defined]
    if "error" in outcome:
        raise ValueError(outcome["error"])
    print(summary(cfg, outcome["step"]))
    return result


def trainer_of(cfg: Config, owner: str, callbacks: Sequence[UserCallback] = ()) -> ElasticTrainer:
    """Ray Train's trainer of a run, whose folder `owner` has claimed; asks the cluster what it has."""
    filesystem, path = ray_storage(cfg.run.storage)
    low, high = cfg.scaling.bounds
    gpu = use_gpu(cfg)
    tune_ray_train(cfg)
    return ElasticTrainer(
        train_loop,
        train_loop_config={"worker": worker_config(cfg, owner)},
        scaling_config=ScalingConfig(
            num_workers=high if low == high else (low, high),
            use_gpu=gpu,
            resources_per_worker=resources_per_worker(cfg, gpu),
            elastic_resize_monitor_interval_s=cfg.scaling.resize_interval_s,
        ),
        torch_config=ProcessGroupConfig(
            "nccl" if gpu else "gloo", timeout_s=int(cfg.scaling.collective_timeout_s)
        ),
        run_config=RunConfig(
            name=cfg.run.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=cfg.scaling.max_failures),
            callbacks=list(callbacks),
        ),
    )


def is_finished(cfg: Config) -> bool:
    """Whether the run of this name has done all its steps, or has given up; says so, or that it is extended."""
    name, folder, goal = cfg.run.name, run_folder(cfg), cfg.train.max_steps
    found = checkpoints(folder)
    done = bool(found) and step_of(found[0]) >= min(goal, described_goal(folder))
    if not done and not cfg.eval.stop_after:
        return False
    if (newest := newest_good(folder)) is None:
        return False
    step, other = step_of(newest), "or choose another run.name"
    if step >= goal:
        print(
            f"the run {name} is finished: it stands at step {step}, train.max_steps is {goal}. Nothing is trained; "
            f"raise train.max_steps to extend it, {other}"
        )
        return True
    if gives_up(read_state(newest).validations, cfg.eval.stop_after, cfg.train.checkpoint.ranks_by):
        print(
            f"the run {name} is finished: it stopped at step {step} for want of a better "
            f"{cfg.train.checkpoint.metric}. Nothing is trained; raise eval.stop_after to go on, {other}"
        )
        return True
    if step >= described_goal(folder):
        print(
            f"the run {name} was finished at step {step}: it is extended to train.max_steps {goal}"
        )
    return False


def described_goal(folder: str) -> float:
    """train.max_steps of the run's last start; infinity where nobody knows."""
    try:
        return yaml.safe_load(read_file(below(folder, "config.yaml")))["train"]["max_steps"]
    except (FileNotFoundError, KeyError, TypeError, yaml.YAMLError):
        return float("inf")


def resources_per_worker(cfg: Config, gpu: bool) -> dict[str, float]:
    """What Ray reserves for each worker."""
    return {
        "CPU": cfg.scaling.cpus_per_worker,
        **({"GPU": 1} if gpu else {}),
        **cfg.scaling.worker_resources,
    }


def tune_ray_train(cfg: Config) -> None:
    """Hand Ray Train those settings that it reads from the environment; what the user has set there counts."""
    scaling = cfg.scaling
    for name, value in {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": scaling.health_poll_s,
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": scaling.start_timeout_s,
        "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": scaling.notice_poll_s / 2,
        # of a worker that does not answer at all: the others' report comes before
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": scaling.collective_timeout_s,
    }.items():
        os.environ.setdefault(name, str(value))


def check(cfg: Config) -> None:
    """Refuse what cannot train, before anything starts.

    Raises:
        ValueError: names the keys.
    """
    check_sizes(cfg.model, cfg.train, cfg.data)
    check_metric(cfg.train, cfg.eval)
    if cfg.eval.sentences and not cfg.model.n_speakers:
        raise ValueError(
            "eval.sentences cannot be spoken by a voice without a speaker table: leave them out"
        )
    run_folder(cfg)
    _, high = cfg.scaling.bounds
    G = cfg.train.micro_batches_per_step
    if high > G:
        raise ValueError(
            f"scaling.num_workers {high} is more than the plan can feed: a global step has "
            f"train.micro_batches_per_step {G} micro-batches; raise it, or lower the number of workers"
        )
    hang, collective = cfg.train.hang_timeout_s, cfg.scaling.collective_timeout_s
    if collective < hang + REPORT_S:
        raise ValueError(
            f"scaling.collective_timeout_s {collective:g} must be {REPORT_S} s longer than train.hang_timeout_s "
            f"{hang:g}, or the workers end before they have said where they hang: raise it, or lower the other"
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


def worker_config(cfg: Config, owner: str) -> WorkerConfig:
    """What each worker is told."""
    return WorkerConfig(
        data=cfg.data,
        model=cfg.model,
        train=cfg.train,
        eval=cfg.eval,
        folder=run_folder(cfg),
        threads=cfg.scaling.threads_per_worker,
        notice_poll_s=cfg.scaling.notice_poll_s,
        collective_timeout_s=cfg.scaling.collective_timeout_s,
        loader_resources=cfg.scaling.loader_resources,
        owner=owner,
        config_yaml=to_yaml(cfg),
        code_version=code_version(),
    )


def code_version() -> str:
    """Digest of the source of the packages: works in a checkout and in what `ray job submit` uploads."""
    root, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(
        p for package in ("data", "trainable", "job") for p in (root / package).rglob("*.py")
    ):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def save_description(cfg: Config) -> None:
    """Save the resolved configuration, the code version and the environment in the run's folder."""
    folder = run_folder(cfg)
    packages = {d.metadata["Name"]: d.version for d in distributions()}
    description = {"code_version": code_version(), "packages": dict(sorted(packages.items()))}
    put_file(below(folder, "config.yaml"), to_yaml(cfg).encode())
    put_file(below(folder, "environment.json"), json.dumps(description, indent=1).encode())
    forget_checkpoint_list(folder)


def summary(cfg: Config, step: int) -> str:
    """Where everything is, at a run's end."""
    folder = run_folder(cfg)
    shown = {
        "shards": cfg.data.shards,
        "checkpoint": next(iter(checkpoints(folder)), "none"),
        "metrics": f"{folder}/metrics.jsonl"
        if is_local(folder)
        else f"{folder}/metrics/<first step>.jsonl",
        "logs": f"{folder}/logs",
        "TensorBoard": f"{folder}/tensorboard  (tensorboard --logdir {folder})",
        "audio": f"{folder}/tensorboard/eval (tab Audio), or python -m job.synthesize --checkpoint {folder} ...",
    }
    return "\n".join(
        [
            f"run {cfg.run.name}: step {step} of {cfg.train.max_steps}",
            *(f"  {k:12} {v}" for k, v in shown.items()),
        ]
    )


if __name__ == "__main__":
    run(main)
