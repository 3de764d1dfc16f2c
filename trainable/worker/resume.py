"""Where a run begins: at its newest checkpoint, at other weights, or from scratch.

After numbers blew up it begins again at a scheduled checkpoint, behind the bad step.
"""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace

import yaml

from data.files import below, read_file
from data.plan.epoch_plan import Position
from data.plan.history import changed
from data.plan.schedule import Schedule
from data.shards.manifest import Manifest
from data.stream.spec import StreamSpec, block_of
from trainable.config import TrainConfig
from trainable.distributed.collectives import broadcast, collective, on_all_ranks
from trainable.distributed.wrapping import unwrapped
from trainable.learning.not_finite import NotFiniteError
from trainable.learning.optimizer import base_rate
from trainable.learning.state import AUTOCAST_TYPES, TrainState
from trainable.run.checkpoint import load_checkpoint
from trainable.run.format import CONFIG, CheckpointInfo
from trainable.run.saver import Saver
from trainable.run.storage import checkpoints, fetched, newest_good
from trainable.settings import changed_settings
from trainable.weights.warm_start import Taken, check_first_step, warm_start
from trainable.worker.config import WorkerConfig
from trainable.worker.roll_back import roll_back, scheduled_before

log = logging.getLogger("bert_vits2_ray")


def spec_of_new_run(cfg: WorkerConfig, manifest: Manifest) -> StreamSpec:
    """Return what names the data and its order, for a run that begins with these settings."""
    return StreamSpec.of_new_run(
        data=cfg.data,
        digest=manifest.digest,
        seed=cfg.train.seed,
        micro_batches_per_step=cfg.train.micro_batches_per_step,
        segment_frames=cfg.train.segment_size // cfg.data.hop_length,
        block=block_of(manifest),
        generations=manifest.generations,
    )


def precision_of(folder: str) -> str | None:
    """Return what a run's newest checkpoint was computed in; None if there is no checkpoint yet.

    The checkpoint may be damaged, so that an older one is resumed from: that says the same.

    Raises:
        OSError: the storage cannot be read.
    """
    for checkpoint in checkpoints(folder):
        with contextlib.suppress(yaml.YAMLError, TypeError, KeyError):
            found = yaml.safe_load(read_file(below(checkpoint, CONFIG)))["train"]["precision"]
            if found in AUTOCAST_TYPES:
                return found
    return None


@collective
def resume_or_start(
    cfg: WorkerConfig,
    rank: int,
    spec: StreamSpec,
    state: TrainState,
    saver: Saver,
    speakers: Mapping[str, int] | None = None,
) -> StreamSpec:
    """Restore the newest good checkpoint of the run's folder, or start the run.

    All ranks take the same checkpoint.

    Args:
        cfg: what the worker is told.
        rank: rank of this worker.
        spec: names the data and its order, as for a new run.
        state: restored in place.
        saver: is told which step the run resumed from.
        speakers: name -> row of the speaker table, to match those of `train.init_from`; None: by
            row.

    Returns:
        `spec`, with the changes of the order since the run's beginning.

    Raises:
        ValueError: the checkpoint does not fit, or there is nothing to start from.
        StorageError: the storage failed for too long.
    """
    # rank 0 chooses: the folder may change while the ranks look
    own = on_all_ranks(lambda: newest_good(cfg.folder) if rank == 0 else None, cfg.retry_s)
    newest = broadcast(own)
    if newest is None:
        on_all_ranks(lambda: start(cfg.train, rank, state, speakers), cfg.retry_s)
        return spec

    def load() -> tuple[CheckpointInfo, list[str]]:
        with fetched(newest) as folder:
            before = (folder / CONFIG).read_text(encoding="utf-8")
            info = load_checkpoint(folder, state)
        return info, changed_settings(before, cfg.config_yaml)

    info, differences = on_all_ranks(load, cfg.retry_s)
    if state.unused.weights:
        names = ", ".join(state.unused.weights)
        log.info("not trained in this start, kept in the checkpoints as they are: %s", names)
    saver.resumed = info.position.step
    check_same_data(info, spec, speakers)
    tell_differences(cfg, info, differences)

    history = changed(info.history, info.position, spec.cut)
    if info.history and history != info.history:
        log.warning("what epoch %d has not used yet is planned again", info.position.epoch)
    log.info("resumes at step %d from %s", info.position.step, newest)
    return replace(spec, history=history)


def tell_differences(cfg: WorkerConfig, info: CheckpointInfo, settings: list[str]) -> None:
    """Log in what a start differs from the one that wrote its checkpoint.

    Args:
        cfg: what the worker is told.
        info: what the checkpoint tells about itself.
        settings: what has changed in the settings.
    """
    if info.code_version != cfg.code_version:
        log.warning(
            "resumes with code %s; the checkpoint was written by %s",
            cfg.code_version,
            info.code_version,
        )
    if settings:
        log.info("resumes with other settings: %s", "; ".join(settings))


def check_same_data(
    info: CheckpointInfo, spec: StreamSpec, speakers: Mapping[str, int] | None = None
) -> None:
    """Refuse to resume on other data, or on the same data with other numbers of speakers.

    Args:
        info: what the checkpoint tells about itself.
        spec: names the data.
        speakers: name -> row of the speaker table, as the data number them.

    Raises:
        ValueError: says what to do.
    """
    if info.manifest != spec.digest:
        raise ValueError(
            f"the run was trained on other data (manifest {info.manifest[:12]}, "
            f"{spec.data.shards} has {spec.digest[:12]}): "
            "restore the shards or choose another run.name"
        )
    rows = {name: (row, (speakers or {}).get(name, row)) for name, row in info.speakers.items()}
    moved = [f"{name} {was} -> {now}" for name, (was, now) in rows.items() if was != now]
    if moved:
        raise ValueError(
            f"{spec.data.shards} numbers speakers otherwise than the run ({', '.join(moved[:3])}), "
            "which would swap their voices: restore the shards, or start another run.name with "
            "train.init_from, which matches speakers by name"
        )


def start(
    train: TrainConfig,
    rank: int,
    state: TrainState,
    speakers: Mapping[str, int] | None = None,
) -> None:
    """Start a run: take over the weights of `train.init_from`, if given; every rank reads them.

    Args:
        train: the training.
        rank: rank of this worker; 0 logs what was taken over.
        state: changed in place.
        speakers: see `resume_or_start`.
    """
    log.info("starts from %s", train.init_from or "random weights")
    if train.init_from is None:
        return

    nets = {name: unwrapped(net) for name, net in state.nets.items()}
    optimizers = None if train.skip_optimizer else state.optimizers
    taken = warm_start(train.init_from, nets, optimizers, train.hub_endpoint, speakers)
    state.position = first_position(train, taken)
    state.base_rates |= {
        name: base_rate(train, state.position, rate) for name, rate in taken.learning_rates.items()
    }
    if state.averaged is not None:
        # the average is of the weights that were there before
        state.averaged.restart()
    if rank == 0:
        log.info("%s", "\n".join(taken.report))
        if state.position.step:
            log.info("goes on at step %d, epoch %d", state.position.step, state.position.epoch)
        if taken.initial:
            log.warning("%s leaves initial values in %s", train.init_from, taken.initial)


def first_position(train: TrainConfig, taken: Taken) -> Position:
    """Return where a run begins that took over weights.

    Raises:
        ValueError: behind its last step; names the keys.
    """
    step = taken.step if train.init_step == "auto" else train.init_step
    check_first_step(train, step)
    return Position(step, taken.epoch) if step else Position()


@collective
def restore_before(
    error: NotFiniteError, cfg: WorkerConfig, rank: int, state: TrainState, schedule: Schedule
) -> None:
    """Restore the last scheduled checkpoint before a bad step, and stand behind that step.

    Args:
        error: what is wrong with the step.
        cfg: what the worker is told.
        rank: rank of this worker.
        state: restored in place.
        schedule: order of the run's data.

    Raises:
        NotFiniteError: there is no such checkpoint, or there were too many roll-backs in a row.
        StorageError: the storage failed for too long.
    """
    every = cfg.train.checkpoint.every_steps

    def find() -> str | None:
        return scheduled_before(cfg.folder, error.step, every) if rank == 0 else None

    found = broadcast(on_all_ranks(find, cfg.retry_s))
    if found is None:
        raise NotFiniteError(
            f"{error}. No checkpoint of train.checkpoint.every_steps {every} lies before it: "
            "there is nothing to roll back to",
            error.step,
        )

    def restore() -> None:
        with fetched(found) as folder:
            roll_back(state, folder, error, schedule.after, schedule.utterances)

    on_all_ranks(restore, cfg.retry_s)
