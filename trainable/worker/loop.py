"""The training loop of a worker, to be read from top to bottom. It knows no Ray.

Its parts are made in trainable/worker/setup.py and handed in.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from data.plan.epoch_plan import EpochPlan, Position
from data.plan.schedule import Schedule
from data.shards.manifest import Names
from data.stream.micro_batches import MicroBatch
from trainable.compiling import not_compiled
from trainable.distributed.collectives import collective, on_all_ranks
from trainable.evaluation.validation import Validator
from trainable.flops import Utilisation
from trainable.learning.judgement import gives_up
from trainable.learning.not_finite import NotFiniteError
from trainable.learning.rehearsal import naming
from trainable.learning.report import StepReport
from trainable.learning.state import TrainState
from trainable.learning.step import TrainingStep
from trainable.profiling import StepProfile
from trainable.run.records import RunLog
from trainable.worker.config import WorkerConfig
from trainable.worker.preemption import Notices
from trainable.worker.progress import (
    announce,
    computed_frames,
    padding_share,
    peak_gib,
    show_progress,
)
from trainable.worker.ray_worker import Worker
from trainable.worker.resume import restore_before
from trainable.worker.saving import Checkpoints
from trainable.worker.watchdog import Watchdog

log = logging.getLogger("bert_vits2_ray")


class Stream(Protocol):
    """This rank's micro-batches of each global step, on its device.

    Taking the next step is a collective call.
    """

    def __iter__(self) -> Generator[list[MicroBatch]]:
        """Yield the micro-batches of each global step."""

    def stop(self) -> None:
        """End it before its end."""


@dataclass
class TrainingLoop:
    """Trains from where the state stands to the run's end.

    Attributes:
        cfg: what the worker is told.
        worker: this worker.
        names: utterances' ids by row of the manifest.
        schedule: order of the run's data.
        open_stream: returns the micro-batches from a position on; a collective call.
        state: what is trained, and the position.
        train_step: takes a global step.
        records: records of the steps.
        validator: scores the generator.
        checkpoints: saves the run, and leaves.
        watchdog: sees when this thread hangs.
    """

    cfg: WorkerConfig
    worker: Worker
    names: Names
    schedule: Schedule
    open_stream: Callable[[Position], Stream]
    state: TrainState
    train_step: TrainingStep
    records: RunLog
    validator: Validator
    checkpoints: Checkpoints
    watchdog: Watchdog

    @collective
    def train_to_end(self) -> None:
        """Train to the end.

        Raises:
            NotFiniteError: numbers blew up, and no policy helped.
            BadRowsError: the next step needs damaged rows; the state is that of the step before.
            StorageError: checkpoints could not be written.
            PreemptedError: the workers must end; the run is saved.
            StoppedError: the run is stopped, and is saved.
        """
        with self.watchdog:
            if self.owes_validation():
                self.validate_and_save()
            while self.has_steps_left():
                self.train_on_a_stream()
        stands = f"step {self.state.position.step} of {self.cfg.train.max_steps}: done"
        log.info("%s", stands)
        log.debug("%s; parameters %s", stands, self.state.digest())
        self.records.close()

    @collective
    def train_on_a_stream(self) -> None:
        """Train to the end on one stream, or until numbers blow up and the run is rolled back."""
        stream = self.open_stream(self.state.position)
        steps = iter(stream)
        wanted = self.cfg.train.profile_steps
        profile = StepProfile(wanted, self.cfg.folder, self.worker.rank, self.worker.device)
        try:
            with contextlib.closing(steps), contextlib.closing(profile):
                self.take_steps(steps, profile)
        except NotFiniteError as error:
            if self.cfg.train.not_finite.policy != "roll_back":
                raise
            stream.stop()
            self.go_back(error)
        else:
            if self.state.position.step < self.cfg.train.max_steps:  # it has given up
                stream.stop()

    @collective
    def take_steps(self, stream: Iterator[list[MicroBatch]], profile: StepProfile) -> None:
        """Take global steps while there are any left: the loop."""
        state = self.state
        train = self.cfg.train
        notices = Notices(self.worker.ask_for_notice, self.cfg.notice_poll_s)
        utilisation = Utilisation(train, self.worker.device)
        announced = None
        while self.has_steps_left():
            here = state.position
            number = here.step + 1
            is_last = number == train.max_steps
            plan = self.schedule.plan(here.epoch)
            is_first = announced is None
            if here.epoch != announced and self.worker.rank == 0:
                announce(here.epoch, plan, self.names)
            announced = here.epoch

            # wait for the micro-batches; all ranks agree that they can be trained on
            profile.begin(number)
            begin = time.perf_counter()
            micro_batches = next(stream)
            waited = time.perf_counter() - begin
            if is_first:
                log.debug("data are open after %.1f s", waited)

            # train on them
            frames = computed_frames(micro_batches)
            with utilisation.counting(frames, here.step == train.adversarial_from_step):
                report = self.train_on(micro_batches, number)
            profile.end(number)
            seconds = time.perf_counter() - begin
            learning_rate = state.learning_rate("g")
            state.position = self.schedule.after(here)

            # remember what the step told, and read it from time to time
            self.records.add(
                report,
                partial(self.members, plan, here.epoch_step),
                step=number,
                epoch=here.epoch,
                world_size=self.worker.world_size,
                lr=learning_rate,
                utterances=plan.utterances(here.epoch_step),
                padding=padding_share(micro_batches),
                seconds=seconds,
                seconds_waiting=waited,
                peak_gib=peak_gib(self.worker.device),
                **utilisation.of(frames, seconds),
            )
            if number % train.log_every_steps == 0 or number == 1 or is_last:
                show_progress(self.records, train.max_steps)
                self.worker.report_progress(self.records.told)

            # a node that leaves may not have the time for a validation, nor has a user
            notice = None if is_last else notices.poll()
            if notice is not None:
                self.checkpoints.leave(notice)
            self.validate_and_save()
            self.watchdog.alive(number)

    @collective
    def train_on(self, micro_batches: list[MicroBatch], number: int) -> StepReport:
        """Take a global step.

        Args:
            micro_batches: this rank's share of the step.
            number: number of the step, counted from 1.
        """
        batches = [(m.slot, m.batch) for m in micro_batches]
        want_images = number % self.cfg.train.image_every_steps == 0 or number == 1
        with naming(self.train_step, self.names):
            return self.train_step(batches, want_images=want_images)

    def members(self, plan: EpochPlan, epoch_step: int, slot: int) -> str:
        """Return the ids of the utterances of a micro-batch, for messages."""
        return ", ".join(self.names[plan.micro_batch(epoch_step, slot)])

    def has_steps_left(self) -> bool:
        """Tell whether there are steps to take; the same on all ranks."""
        train = self.cfg.train
        if self.state.position.step >= train.max_steps:
            return False
        patience = self.cfg.eval.stop_after
        return not gives_up(self.state.validations, patience, train.checkpoint.ranks_by)

    @collective
    def validate_and_save(self) -> None:
        """Do what is due after a step."""
        step = self.state.position.step
        train = self.cfg.train
        scores: dict[str, float] = {}
        if step % self.cfg.eval.every_steps == 0 or step == train.max_steps:
            show_progress(self.records, train.max_steps)
            self.watchdog.alive(step, long=True)
            with not_compiled(train):
                scores = self.validator.validate(step, self.records)

        if not self.has_steps_left():
            self.checkpoints.save_and_report(scores, wait=True)
        elif step % train.checkpoint.every_steps == 0 or (scores and train.checkpoint.keep_best):
            self.checkpoints.save_and_report(scores)
        elif scores:
            self.worker.report_progress(self.records.told | scores)

    def owes_validation(self) -> bool:
        """Tell whether the run was left just before a validation.

        It is made up for, so that all runs have the same scores.
        """
        step = self.state.position.step
        is_due = step > 0 and step % self.cfg.eval.every_steps == 0
        before = self.state.validations
        return is_due and (not before or before[-1].step < step)

    @collective
    def go_back(self, error: NotFiniteError) -> None:
        """Restore the last scheduled checkpoint before a bad step, and save behind that step.

        Raises:
            NotFiniteError: there is nothing to go back to, or there were too many roll-backs in a
                row.
        """
        self.watchdog.alive(error.step, long=True)
        self.checkpoints.saver.finish()
        restore_before(error, self.cfg, self.worker.rank, self.state, self.schedule)

        def mark() -> None:
            self.records.roll_back(error.step, self.state.passed_over)

        on_all_ranks(mark, self.cfg.retry_s)
        self.checkpoints.save_and_report()
