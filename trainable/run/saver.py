"""What a run writes, beside the training: one thread, in the order in which it was handed over."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from data.files import keep_trying
from trainable.config import CheckpointConfig
from trainable.learning.state import TrainState
from trainable.run.checkpoint import HostCopy, Snapshot, take_snapshot, write_snapshot
from trainable.run.format import CheckpointInfo
from trainable.run.storage import (
    WriteList,
    list_checkpoints,
    owner,
    prune,
    write_checkpoint,
    write_no_list,
)

log = logging.getLogger("bert_vits2_ray")
FAILURES_IN_A_ROW = 3


def nothing() -> None:
    """Do nothing: there is nothing else to write."""


class Saver:
    """The thread that writes the run's folder: records as they come, checkpoints from snapshots.

    A checkpoint that cannot be written is tried again for `retry_s` seconds. Then it is given up
    (logged), and the run continues to the next one; `problem` tells when it should not.
    """

    def __init__(
        self,
        folder: str,
        cfg: CheckpointConfig,
        owner: str | None = None,
        write_list: WriteList = write_no_list,
    ):
        """Start the thread.

        Args:
            folder: folder or URI of the run.
            cfg: what is kept, and how long a write is tried.
            owner: this job's claim of the folder: nothing is saved once another job has claimed
                it; None: claims are ignored.
            write_list: writes the run's list of checkpoints, which is always true of the folder.
        """
        self.folder = folder
        self.cfg = cfg
        self.owner = owner
        self.write_list = write_list
        self.taken_by = ""  # another job that has claimed the folder
        # one: what is handed over first is written first
        self.thread = ThreadPoolExecutor(1, "saver")
        self.host = HostCopy()
        self.writing: Future[None] | None = None
        self.resumed = -1  # step that the run resumed from
        self.saved: list[int] = []  # steps of the durable checkpoints since then
        self.failures = 0  # in a row
        self.error = ""  # the last one

    def submit(self, write: Callable[[], None]) -> None:
        """Write something after all that was handed over before.

        A failure is logged; `write` keeps what it could not write.
        """

        def attempt() -> None:
            try:
                write()
            except OSError as error:
                log.warning("%s; it will be written later", error)

        self.thread.submit(attempt)

    def save(
        self,
        state: TrainState,
        info: CheckpointInfo,
        config_yaml: str,
        first: Callable[[], None] = nothing,
    ) -> Future[None]:
        """Copy the state, and begin to write it.

        Waits for the checkpoint before, whose memory is used again.

        Args:
            state: what is trained.
            info: what the checkpoint tells about itself.
            config_yaml: resolved configuration of the run.
            first: writes what must be durable before the checkpoint: the records of the steps up
                to it.

        Returns:
            Done when the checkpoint is durable, or given up.
        """
        self.wait()
        snapshot = take_snapshot(state, info, config_yaml, self.host)
        self.writing = self.thread.submit(self._write, snapshot, first)
        return self.writing

    def _write(self, snapshot: Snapshot, first: Callable[[], None]) -> None:
        """Make a checkpoint durable and prune the older ones, or give it up; in the thread."""
        step = snapshot.info.position.step
        seconds = self.cfg.retry_s
        write_files = partial(write_snapshot, snapshot)
        try:
            if not self._is_ours():
                return
            # a resume from this checkpoint writes no metrics of the steps before it again
            keep_trying(first, seconds)
            keep_trying(lambda: write_checkpoint(self.folder, step, write_files), seconds)
        except OSError as error:
            self.failures += 1
            self.error = f"step {step} could not be saved: {error}"
            log.error(
                "%s (failure %d in a row; the run stops after %d)",
                self.error,
                self.failures,
                FAILURES_IN_A_ROW,
            )
            return

        self.failures = 0
        self.saved.append(step)
        try:
            prune(self.folder, self.saved, self.cfg, self.resumed, self.write_list)
        except OSError as error:
            log.warning("old checkpoints are kept until the next one is saved: %s", error)

    def list_what_was_found(self) -> None:
        """List the checkpoints up to the one that the run resumed from: later ones are damaged."""

        def write() -> None:
            if self._is_ours():
                list_checkpoints(self.folder, self.write_list, self.resumed)

        self.submit(write)

    def _is_ours(self) -> bool:
        """Tell whether no other job has claimed the folder; two would prune each other's.

        Raises:
            OSError: the store is out of reach.
        """
        if not self.owner:
            return True
        now = keep_trying(lambda: owner(self.folder), self.cfg.retry_s)
        if now != self.owner:
            self.taken_by = now.partition(" ")[2]
        return now == self.owner

    def has(self, step: int) -> bool:
        """Tell whether the newest durable checkpoint is of this step.

        The one that the run resumed from counts too.
        """
        return step in (self.resumed, *self.saved[-1:])

    def wait(self) -> None:
        """Wait until the checkpoint in flight is durable or given up."""
        if self.writing is not None:
            self.writing.result()

    def finish(self) -> None:
        """Wait until all that was handed over is written or given up."""
        self.thread.submit(nothing).result()

    def problem(self, last: bool) -> str | None:
        """Return why the run should stop; None if it should not.

        Args:
            last: nothing comes after the checkpoint just saved, so that it must not fail.
        """
        if self.taken_by:
            return (
                f"another job trains the run {self.folder} ({self.taken_by}). "
                "This job was started earlier, and stops; "
                "if both are wanted, give one of them another run.name"
            )
        if self.failures < (1 if last else FAILURES_IN_A_ROW):
            return None
        return (
            f"{self.error}. The last good state is the newest checkpoint: "
            "free up space or fix the storage, then rerun the same command"
        )

    def close(self) -> None:
        """Wait until everything is written or given up, and end the thread."""
        self.thread.shutdown()
