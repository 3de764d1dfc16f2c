"""The loop of every Ray Train worker: data in, steps, records, checkpoints. It knows Ray; so does `preemption`."""

import logging
import platform
import resource
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointUploadMode, PreemptionInfo
from torch import nn

from data.config import DataConfig
from data.files import StorageError
from data.plan.epoch_plan import EpochPlan, Position
from data.plan.history import changed
from data.shards.manifest import read_manifest
from data.stream.loading import BadRowsError
from data.stream.pipeline import (
    Damage,
    MicroBatch,
    MicroBatchStream,
    StreamSpec,
    advance,
    plan_of,
)
from trainable.config import EvalConfig, ModelConfig, TrainConfig
from trainable.distributed.agreement import Agreement
from trainable.distributed.collectives import all_gather, broadcast, on_all_ranks
from trainable.distributed.wrapping import unwrapped
from trainable.evaluation.validation import Validator
from trainable.hardware import set_up_torch
from trainable.learning.judgement import gives_up
from trainable.learning.not_finite import NotFiniteError
from trainable.learning.rehearsal import naming, rehearse
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.run.checkpoint import load_checkpoint
from trainable.run.format import CheckpointInfo, checkpoint_name
from trainable.run.logs import start_logging, upload_log
from trainable.run.records import RunLog
from trainable.run.roll_back import roll_back, scheduled_before
from trainable.run.saver import Saver
from trainable.run.storage import fetched, newest_good
from trainable.settings import changed_settings, check_fits
from trainable.weights.slm import load_slm
from trainable.weights.warm_start import warm_start
from trainable.worker.preemption import Notices, PreemptedError, reason
from trainable.worker.watchdog import Watchdog

log = logging.getLogger("bert_vits2_ray")
T = TypeVar("T")


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker is told.

    Attributes:
        data: the data.
        model: the networks.
        train: the training.
        eval: the validation.
        folder: folder or URI of the run.
        threads: torch threads of this worker; from the configuration, never from the number of
            workers.
        notice_poll_s: seconds between looks for a notice that a node goes.
        collective_timeout_s: seconds after which a collective operation fails that not all workers
            join.
        loader_resources: further resources of the cluster that each loader takes.
        owner: of the folder, the job that was started last.
        config_yaml: the run's resolved configuration, for the checkpoints.
        code_version: of the code that runs.
    """

    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    eval: EvalConfig
    folder: str
    threads: int
    notice_poll_s: float
    collective_timeout_s: float
    loader_resources: dict[str, float]
    owner: str
    config_yaml: str
    code_version: str


def train_loop(config: dict) -> dict[str, Any]:
    """Train until `train.max_steps`, from the newest checkpoint on.

    Args:
        config: `worker` is a WorkerConfig.

    Returns:
        `step`, where the run stands; or `error`, where it cannot go on in any number of attempts,
        the same on all workers. Whatever else goes wrong is raised, and Ray Train starts the
        workers again.
    """
    try:
        worker = Worker(config["worker"])
    except (ValueError, StorageError) as error:
        log.error("%s", error)
        return {"error": str(error)}
    try:
        try:
            worker.run()
        except BadRowsError:  # between two steps: the state is good
            worker.save_now()
            raise
    except (NotFiniteError, StorageError, BadRowsError) as error:
        log.error("%s", error)
        return {"error": str(error)}
    finally:
        worker.saver.submit(partial(upload_log, worker.logs, worker.cfg.folder))
        worker.saver.close()
    return {"step": worker.state.position.step}


class Worker:
    """One worker of the run."""

    def __init__(self, cfg: WorkerConfig):
        """Build the state, or restore it from the run's newest checkpoint."""
        context = ray.train.get_context()
        self.cfg, self.rank, self.world_size = (
            cfg,
            context.get_world_rank(),
            context.get_world_size(),
        )
        self.device = ray.train.torch.get_device()
        if self.device.type == "cuda":
            # before the first collective call: the node's workers see all its GPUs
            torch.cuda.set_device(self.device)
        self.logs = self.together(lambda: start_logging(cfg.folder, self.rank))
        set_up_torch(cfg.train, cfg.threads, self.device)
        self.saver = Saver(cfg.folder, cfg.train.checkpoint, cfg.owner)
        manifest = self.together(lambda: read_manifest(cfg.data.shards))
        self.spec = StreamSpec(
            data=cfg.data,
            digest=manifest.digest,
            seed=cfg.train.seed,
            micro_batches_per_step=cfg.train.micro_batches_per_step,
            segment_frames=cfg.train.segment_size // cfg.data.hop_length,
        )
        if len(set(all_gather(manifest.digest))) > 1:
            raise ValueError(
                f"data.shards {cfg.data.shards} differs between the nodes: give a folder that they share"
            )
        self.manifest = manifest
        self.agree = Agreement(cfg.collective_timeout_s)
        self.damage = Damage(self.agree)
        check_fits(cfg.data, cfg.model, manifest)
        slm = self.together(lambda: load_slm(cfg.model.slm, cfg.data.sampling_rate)).to(self.device)
        nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
        self.state = TrainState(
            {name: prepare(net) for name, net in nets.items()}, slm, cfg.model, cfg.train
        )
        self.resume()
        # refuses what cannot be planned, on all ranks alike
        plan_of(self.spec, self.state.position.epoch)
        self.step = TrainingStep(self.state, cfg.train, cfg.data)
        error = self.agree(rehearse(self.step, partial(plan_of, self.spec), manifest))
        if error:
            raise ValueError(error)
        position, fp16 = self.state.position, cfg.train.precision == "fp16"
        self.records = self.together(
            lambda: RunLog(
                cfg.folder,
                position.step,
                self.rank == 0,
                cfg.train.not_finite,
                fp16,
                self.state.passed_over,
                self.saver.submit,
            )
        )
        self.validate = Validator(
            cfg.eval, cfg.train, self.spec, manifest, self.state, self.rank, self.damage, self.agree
        )
        attempt = broadcast(uuid.uuid4().hex)
        self.watchdog = Watchdog(
            cfg.folder, self.rank, self.world_size, attempt, cfg.train.hang_timeout_s, position.step
        )

    def resume(self) -> None:
        """Restore the newest good checkpoint of the run's folder, if there is one; all workers take the same."""
        newest = broadcast(
            self.together(lambda: newest_good(self.cfg.folder) if self.rank == 0 else None)
        )
        if newest is None:
            self.together(self.start)
            return

        def load() -> tuple[CheckpointInfo, list[str]]:
            with fetched(newest) as folder:
                described = (folder / "config.yaml").read_text()
                return load_checkpoint(folder, self.state), changed_settings(
                    described, self.cfg.config_yaml
                )

        info, differences = self.together(load)
        self.saver.resumed = info.position.step
        if info.manifest != self.manifest.digest:
            raise ValueError(
                f"the run was trained on other data (manifest {info.manifest[:12]}, {self.cfg.data.shards} has "
                f"{self.manifest.digest[:12]}): restore the shards or choose another run.name"
            )
        if info.code_version != self.cfg.code_version:
            log.warning(
                "resumes with code %s; the checkpoint was written by %s",
                self.cfg.code_version,
                info.code_version,
            )
        if differences:
            log.info("resumes with other settings: %s", "; ".join(differences))
        self.spec = replace(
            self.spec,
            history=changed(info.history or self.spec.changes, info.position, self.spec.cut),
        )
        if info.history and self.spec.changes != info.history:
            log.warning("what epoch %d has not used yet is planned anew", info.position.epoch)
        log.info("resumes at step %d from %s", info.position.step, newest)

    def together(self, action: Callable[[], T]) -> T:
        """Read or write what the run needs, on all ranks: `on_all_ranks`, as patient as with checkpoints."""
        return on_all_ranks(action, self.cfg.train.checkpoint.retry_s)

    def start(self) -> None:
        """Take over published weights, if there are any to start from; every worker reads them."""
        init_from = self.cfg.train.init_from
        log.info("starts from %s", init_from or "random weights")
        if init_from is not None:
            train, state = self.cfg.train, self.state
            nets = {name: unwrapped(net) for name, net in state.nets.items()}
            taken = warm_start(
                init_from,
                nets,
                None if train.skip_optimizer else state.optimizers,
                train.hub_endpoint,
            )
            state.base_rates |= taken.learning_rates
            if state.averaged is not None:
                state.averaged.restart()
            if self.rank == 0:
                log.info("%s", "\n".join(taken.report))

    def run(self) -> None:
        """Train to the end; after a roll-back a new stream goes on behind the bad step."""
        state, train = self.state, self.cfg.train
        with self.watchdog:
            if self.owes_validation():
                self.validate_and_save(state.position.step)
            while self.goes_on():
                stream = self.open_stream()
                try:
                    self.steps(iter(stream))
                except NotFiniteError as error:
                    if train.not_finite.policy != "roll_back":
                        raise
                    stream.stop()
                    self.roll_back(error)
                else:
                    if state.position.step < train.max_steps:
                        stream.stop()
        log.info(
            "step %d of %d: done; parameters %s",
            state.position.step,
            train.max_steps,
            state.digest(),
        )
        self.records.close()

    def open_stream(self) -> MicroBatchStream:
        """The micro-batches from here on."""
        return MicroBatchStream(
            self.spec,
            self.state.position,
            self.cfg.train.max_steps,
            self.rank,
            self.world_size,
            broadcast,
            pin=self.device.type == "cuda",
            damage=self.damage,
            loader_resources=self.cfg.loader_resources,
        )

    def steps(self, stream: Iterator[list[MicroBatch]]) -> None:
        """The loop.

        Raises:
            NotFiniteError: from `flush`.
        """
        cfg, state, train = self.cfg, self.state, self.cfg.train
        notices = Notices(broadcast, cfg.notice_poll_s)
        announced = -1
        while self.goes_on():
            plan = plan_of(self.spec, state.position.epoch)
            if state.position.epoch != announced:
                announced = state.position.epoch
                self.announce(plan)
            step, epoch = state.position.step + 1, state.position.epoch
            begin = time.perf_counter()
            micro_batches = next(stream)
            waited = time.perf_counter() - begin
            batches = [
                (m.slot, m.batch.to(self.device).with_spectrogram(cfg.data)) for m in micro_batches
            ]
            with naming(self.step, self.manifest.column("id")):
                report = self.step(
                    batches, want_images=step % train.image_every_steps == 0 or step == 1
                )
            lr, before, utterances = (
                state.learning_rate("g"),
                state.position,
                self.utterances(state.position),
            )
            state.position = advance(self.spec, state.position)
            self.records.add(
                report,
                partial(self.members, plan, before.epoch_step),
                step=step,
                epoch=epoch,
                world_size=self.world_size,
                lr=lr,
                utterances=utterances,
                padding=padding_share(micro_batches),
                seconds=time.perf_counter() - begin,
                seconds_waiting=waited,
                peak_gib=peak_gib(self.device),
            )
            last = step == train.max_steps
            if step % train.log_every_steps == 0 or step == 1 or last:
                self.flush()
            if not last and (notice := notices.pending()) is not None:
                self.leave(notice)  # before a validation, for which the node may not have the time
            self.validate_and_save(step)
            self.watchdog.alive(step)

    def validate_and_save(self, step: int) -> None:
        """Do what is due after a step; a collective call."""
        cfg, train = self.cfg, self.cfg.train
        scores = (
            self.evaluate(step)
            if step % cfg.eval.every_steps == 0 or step == train.max_steps
            else {}
        )
        if not self.goes_on():
            self.save(CheckpointUploadMode.SYNC, scores)
        elif step % train.checkpoint.every_steps == 0 or (scores and train.checkpoint.keep_best):
            self.save(scores=scores)

    def owes_validation(self) -> bool:
        """Whether the run was left just before a validation: it is made up for, so that all have the same scores."""
        step, before = self.state.position.step, self.state.validations
        return (
            step > 0
            and step % self.cfg.eval.every_steps == 0
            and (not before or before[-1].step < step)
        )

    def roll_back(self, error: NotFiniteError) -> None:
        """Restore the last scheduled checkpoint before a bad step and go on behind that step; a collective call.

        Raises:
            NotFiniteError: there is nothing to go back to, or there were too many roll-backs in
                succession.
        """
        self.watchdog.alive(error.step, long=True)
        self.saver.finish()
        every = self.cfg.train.checkpoint.every_steps
        found = broadcast(
            self.together(
                lambda: (
                    scheduled_before(self.cfg.folder, error.step, every) if self.rank == 0 else None
                )
            )
        )
        if found is None:
            raise NotFiniteError(
                f"{error}. No checkpoint of train.checkpoint.every_steps {every} lies before it: "
                "there is nothing to roll back to",
                error.step,
            )

        def restore() -> None:
            with fetched(found) as folder:
                roll_back(self.state, folder, error, partial(advance, self.spec), self.utterances)

        self.together(restore)
        self.together(lambda: self.records.roll_back(error.step, self.state.passed_over))
        self.save()

    def announce(self, plan: EpochPlan) -> None:
        """Say what an epoch uses twice and what it leaves out."""
        if self.rank:
            return
        position, names = self.state.position, self.manifest.column("id")
        log.info("epoch %d: %d global steps", position.epoch, plan.steps)
        for what, rows in (
            ("fills its last step with", plan.filled_rows()),
            ("leaves out", plan.left_out),
        ):
            if len(rows):
                log.info(
                    "epoch %d %s %d utterances: %s",
                    position.epoch,
                    what,
                    len(rows),
                    ", ".join(names[rows]),
                )

    def members(self, plan: EpochPlan, step: int, slot: int) -> str:
        """The utterances of a micro-batch of an epoch's plan."""
        return ", ".join(self.manifest.column("id")[plan.micro_batch(step, slot)])

    def utterances(self, position: Position) -> int:
        """How many the step at a position has."""
        return plan_of(self.spec, position.epoch).utterances(position.epoch_step)

    def flush(self) -> None:
        """Read and write the scalars of the steps since the last time."""
        lines = self.records.flush()
        if lines and self.rank == 0:
            line = lines[-1]
            self.records.scalars(line)
            log.info(
                "step %d/%d epoch %d: mel %.3f kl %.3f g %.2f d %.3f | %.2f s/step, %.1f utterances/s, %d workers",
                line["step"],
                self.cfg.train.max_steps,
                line["epoch"],
                line["loss/g/mel"],
                line["loss/g/kl"],
                line["loss/g/total"],
                line["loss/d/total"],
                np.mean([x["seconds"] for x in lines]),
                sum(x["utterances"] for x in lines) / sum(x["seconds"] for x in lines),
                self.world_size,
            )

    def goes_on(self) -> bool:
        """Whether there are steps to do."""
        state, train = self.state, self.cfg.train
        return state.position.step < train.max_steps and not gives_up(
            state.validations, self.cfg.eval.stop_after, train.checkpoint.ranks_by
        )

    def evaluate(self, step: int) -> dict[str, float]:
        """Validate, after the steps before were looked at."""
        self.flush()
        self.watchdog.alive(step, long=True)
        return self.validate(step, self.records)

    def leave(self, notice: PreemptionInfo) -> None:
        """Save before a node goes or the run grows, and end, for Ray Train to start the workers anew.

        While the storage fails the run does not grow but goes on: steps would be done again for
            nothing.

        Raises:
            PreemptedError: else; before a node goes always.
        """
        grows = not notice.preempted_ranks
        if grows and broadcast(self.saver.failures):
            return  # until a checkpoint on schedule could be written
        log.warning("step %d: %s: saves now", self.state.position.step, reason(notice))
        try:
            self.save_now()
        except StorageError:
            if grows:
                log.warning("grows when a checkpoint could be written")
                return
            log.warning("the steps since the newest checkpoint will be done again")
        self.records.close()
        raise PreemptedError(notice)

    def save_now(self) -> None:
        """Have the present state in a checkpoint on return; a collective call.

        Raises:
            StorageError: it could not be written.
        """
        step = self.state.position.step
        self.saver.wait()  # for this step's own, perhaps
        if not broadcast(self.saver.has(step)):
            self.save(CheckpointUploadMode.SYNC)
        self.saver.finish()
        log.info("step %d is saved", step)

    def save(
        self,
        upload: CheckpointUploadMode = CheckpointUploadMode.ASYNC,
        scores: dict[str, float] | None = None,
    ) -> None:
        """Write a checkpoint and hand it to Ray Train; a collective call.

        Args:
            upload: ASYNC goes on beside the training, SYNC has ended on return.
            scores: of a validation at this step.

        Raises:
            StorageError: it could not be written, and nothing comes after it; or several in a row
                could not.
        """
        self.flush()
        self.watchdog.alive(self.state.position.step, long=True)
        checkpoint, position = None, self.state.position
        if self.rank == 0:
            info = CheckpointInfo(
                position=position,
                manifest=self.manifest.digest,
                code_version=self.cfg.code_version,
                versions=versions(),
                speakers=self.manifest.speakers,
                world_size=self.world_size,
                scores=scores or {},
                passed_over=self.state.passed_over,
                history=self.spec.changes,
                validations=self.state.validations,
            )
            self.saver.save(self.state, info, self.cfg.config_yaml, self.records.persist)
            checkpoint = self.checkpoint(checkpoint_name(position.step))
        ray.train.report(
            {"step": position.step, "epoch": position.epoch, **(scores or {})},
            checkpoint=checkpoint,
            checkpoint_dir_name=checkpoint_name(position.step),
            checkpoint_upload_mode=upload,
            checkpoint_upload_fn=lambda _, name: self.written(name),
            # it lies where it stays, and ASYNC would delete it
            delete_local_checkpoint_after_upload=False,
        )
        self.saver.submit(partial(upload_log, self.logs, self.cfg.folder))
        problem = broadcast(self.saver.problem(last=upload is CheckpointUploadMode.SYNC))
        if problem is not None:
            raise StorageError(problem)

    def checkpoint(self, name: str) -> Checkpoint:
        """A checkpoint of this run's folder, as Ray Train knows it."""
        storage = ray.train.get_context().get_storage()
        return Checkpoint(storage.build_checkpoint_path_from_name(name), storage.storage_filesystem)

    def written(self, name: str) -> Checkpoint:
        """Wait until a checkpoint is durable; one that could not be written is not reported, but the one before it."""
        self.saver.wait()
        return self.checkpoint(checkpoint_name(self.saver.saved[-1]) if self.saver.saved else name)


def prepare(net: nn.Module) -> nn.Module:
    """Move a network to this worker's device and wrap it for DDP. No network here has buffers that must be shared."""
    return ray.train.torch.prepare_model(net, parallel_strategy_kwargs={"broadcast_buffers": False})


def padding_share(micro_batches: list[MicroBatch]) -> float:
    """Padded share of this worker's spectrogram frames."""
    lengths = [m.batch.spec_lengths for m in micro_batches]
    return 1 - sum(int(n.sum()) for n in lengths) / sum(int(n.max()) * len(n) for n in lengths)


def peak_gib(device: torch.device) -> float:
    """The most memory that this worker has had: of the GPU's, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def versions() -> dict[str, str]:
    """What the environment was."""
    return {"python": platform.python_version(), "torch": torch.__version__, "ray": ray.__version__}
