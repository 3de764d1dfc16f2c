"""A worker's parts, made in an order that is the same on all ranks: most make collective calls."""

import logging
import uuid
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any, cast

import yaml

from data.memory import give_back_freed_memory
from data.plan.epoch_plan import Position
from data.plan.schedule import Schedule
from data.shards.manifest import Manifest, read_manifest
from data.stream.damage import Damage
from data.stream.micro_batches import MicroBatchStream
from data.stream.spec import StreamSpec, know, schedule_of
from trainable.distributed.agreement import Agreement
from trainable.distributed.collectives import all_gather, broadcast, collective, on_all_ranks
from trainable.evaluation.validation import Validator
from trainable.hardware import bf16_of, device_name, set_up_torch
from trainable.learning.rehearsal import rehearse
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.run.logs import start_logging
from trainable.run.records import RunLog
from trainable.run.saver import Saver
from trainable.run.storage import WriteList, write_no_list
from trainable.settings import check_fits, check_speakers, check_splits
from trainable.weights.slm import load_slm
from trainable.worker.config import WorkerConfig
from trainable.worker.loop import TrainingLoop
from trainable.worker.progress import tell_what_runs
from trainable.worker.ray_worker import Worker
from trainable.worker.resume import precision_of, resume_or_start, spec_of_new_run
from trainable.worker.saving import Checkpoints
from trainable.worker.watchdog import Watchdog

log = logging.getLogger("bert_vits2_ray")


@collective
def set_up(
    cfg: WorkerConfig, worker: Worker, write_list: WriteList = write_no_list
) -> TrainingLoop:
    """Make the parts of this worker's loop; its state is restored from the newest checkpoint.

    Args:
        cfg: what the worker is told.
        worker: this worker.
        write_list: writes the run's list of checkpoints.

    Raises:
        ValueError: something does not fit; the same on all ranks.
        StorageError: the storage failed for too long; the same on all ranks.
    """
    # the process
    log_file = on_all_ranks(lambda: start_logging(cfg.folder, worker.rank), cfg.retry_s)
    set_up_torch(cfg.train, cfg.threads, worker.device)
    check_devices(cfg, worker)
    cfg = with_precision(cfg, worker)
    saver = Saver(cfg.folder, cfg.train.checkpoint, cfg.owner, write_list)

    # the data
    manifest = read_shared_manifest(cfg)
    check_manifest(cfg, manifest)
    agreement = Agreement(cfg.collective_timeout_s)
    damage = Damage(agreement.first_error)

    # what is trained, and where it stands
    state = build_state(cfg, worker)
    spec = resumed_stream(cfg, worker, manifest, state, saver)
    schedule = schedule_of(spec)
    # nothing to train on is an error of the settings: no restart would help
    schedule.check(state.position)
    train_step = TrainingStep(state, cfg.train, cfg.data)
    check_memory(train_step, schedule, manifest, agreement)
    # planning takes many times the memory of a plan, and the next epoch is far away
    give_back_freed_memory()

    # what is written and watched
    records = on_all_ranks(lambda: open_records(cfg, worker.rank, state, saver), cfg.retry_s)
    validator = Validator(
        cfg.eval, cfg.train, spec, manifest, state, worker.rank, damage, agreement.first_error
    )
    watchdog = start_watchdog(cfg, worker, state.position.step)
    checkpoints = Checkpoints(
        cfg, worker, manifest, spec.history, state, saver, records, watchdog, log_file
    )
    return TrainingLoop(
        cfg=cfg,
        worker=worker,
        names=manifest.names,
        schedule=schedule,
        open_stream=partial(open_stream, cfg, worker, spec, damage),
        state=state,
        train_step=train_step,
        records=records,
        validator=validator,
        checkpoints=checkpoints,
        watchdog=watchdog,
    )


def check_manifest(cfg: WorkerConfig, manifest: Manifest) -> None:
    """Refuse shards that do not fit the settings.

    Raises:
        ValueError: names what does not fit.
    """
    check_fits(cfg.data, cfg.model, manifest)
    check_speakers(cfg.model, manifest)
    check_splits(cfg.data, manifest)


@collective
def resumed_stream(
    cfg: WorkerConfig, worker: Worker, manifest: Manifest, state: TrainState, saver: Saver
) -> StreamSpec:
    """Bring the state to where the run stands, and tell what runs; return the run's order.

    Raises: see `resume_or_start`.
    """
    if worker.rank == 0:
        tell_what_runs(cfg, worker.world_size, worker.device, state)
    spec = spec_of_new_run(cfg, manifest)
    spec = resume_or_start(cfg, worker.rank, spec, state, saver, manifest.speakers)
    if worker.rank == 0:
        saver.list_what_was_found()
    return spec


@collective
def check_devices(cfg: WorkerConfig, worker: Worker) -> None:
    """Refuse devices of several kinds where the number of workers must not change a bit.

    Raises:
        ValueError: names the key, and how many workers have which device.
    """
    if cfg.train.reduction != "exact":
        return
    kinds = Counter(all_gather(device_name(worker.device)))
    if len(kinds) > 1:
        found = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
        raise ValueError(
            f"train.reduction is exact, which needs devices of one kind, and the workers have "
            f"{found}: use nodes of one kind (scaling.worker_resources), or train.reduction fast"
        )


@collective
def with_precision(cfg: WorkerConfig, worker: Worker) -> WorkerConfig:
    """Decide what `train.precision: auto` computes in; other values stay.

    A run goes on in what it began with, also where another GPU would have it begin otherwise.

    Raises:
        ValueError: it began with bf16, and a GPU has none.
        StorageError: the storage failed for too long.
    """
    if cfg.train.precision != "auto":
        return cfg
    rank = worker.rank
    own = on_all_ranks(lambda: precision_of(cfg.folder) if rank == 0 else None, cfg.retry_s)
    began = broadcast(own)
    without = [name for name, capable in all_gather(bf16_of(worker.device)) if not capable]
    gpus = [name for name in without if not name.startswith("cpu")]
    if began == "bf16" and gpus:
        raise ValueError(
            f"train.precision is auto, the run began with bf16, and {gpus[0]} has none: use newer "
            "GPUs, or set train.precision fp32"
        )
    chosen = began or ("fp32" if without else "bf16")
    if rank == 0:
        found = f"{without[0]} has no bf16" if without else "every worker's GPU has it"
        log.info("train.precision auto: %s, %s", chosen, "as the run began" if began else found)
    settings = yaml.safe_load(cfg.config_yaml)
    settings["train"]["precision"] = chosen
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    train = replace(cfg.train, precision=cast(Any, chosen))
    return replace(cfg, train=train, config_yaml=text)


@collective
def read_shared_manifest(cfg: WorkerConfig) -> Manifest:
    """Read the manifest of the data.

    Raises:
        ValueError: it cannot be read, or the nodes have different ones.
        StorageError: the storage failed for too long.
    """
    manifest = on_all_ranks(lambda: read_manifest(cfg.data.shards), cfg.retry_s)
    if len(set(all_gather(manifest.digest))) > 1:
        raise ValueError(
            f"data.shards {cfg.data.shards} differs between the nodes: "
            "give a folder that they share"
        )
    know(manifest)
    return manifest


@collective
def build_state(cfg: WorkerConfig, worker: Worker) -> TrainState:
    """Build the networks with initial weights, and all that is trained with them."""
    load = partial(load_slm, cfg.model.slm, cfg.data.sampling_rate)
    slm = on_all_ranks(load, cfg.retry_s).to(worker.device)
    nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
    wrapped = {name: worker.wrap(net) for name, net in nets.items()}
    return TrainState(wrapped, slm, cfg.model, cfg.train)


@collective
def check_memory(
    train_step: TrainingStep, schedule: Schedule, manifest: Manifest, agreement: Agreement
) -> None:
    """Try out the costliest micro-batches to come, as `train.rehearse` says.

    Raises:
        ValueError: one does not fit a rank's memory; the same on all ranks.
    """
    error = agreement.first_error(rehearse(train_step, schedule.plan, manifest))
    if error:
        raise ValueError(error)


def open_records(cfg: WorkerConfig, rank: int, state: TrainState, saver: Saver) -> RunLog:
    """Open the records of the run's steps, which rank 0 writes.

    Raises:
        OSError: those of earlier starts cannot be read or written.
    """
    return RunLog(
        cfg.folder,
        resume_step=state.position.step,
        writes=rank == 0,
        not_finite=cfg.train.not_finite,
        loss_scaling=cfg.train.precision == "fp16",
        passed_over=state.passed_over,
        clip=clipped_networks(cfg, state),
        submit=saver.submit,
    )


def clipped_networks(cfg: WorkerConfig, state: TrainState) -> dict[str, float]:
    """Return network -> norm that its gradients are clipped to, of those that are clipped."""
    limits = {name: cfg.train.clip_norm.limit(name, cfg.train.precision) for name in state.nets}
    return {name: limit for name, limit in limits.items() if limit is not None}


@collective
def start_watchdog(cfg: WorkerConfig, worker: Worker, step: int) -> Watchdog:
    """Begin to watch this thread; all ranks know this start of the workers by the same name."""
    attempt = broadcast(uuid.uuid4().hex)
    return Watchdog(
        cfg.folder, worker.rank, worker.world_size, attempt, cfg.train.hang_timeout_s, step
    )


@collective
def open_stream(
    cfg: WorkerConfig, worker: Worker, spec: StreamSpec, damage: Damage, first: Position
) -> MicroBatchStream:
    """Return the micro-batches from a position on.

    Args:
        cfg: what the worker is told.
        worker: this worker.
        spec: names the data and its order.
        damage: notes damaged rows.
        first: position of the first step.
    """
    return MicroBatchStream(
        spec,
        first,
        cfg.train.max_steps,
        worker.rank,
        worker.world_size,
        broadcast,
        device=worker.device,
        damage=damage,
        loader_resources=cfg.loader_resources,
    )
