"""What a run writes, written beside the training: one thread, in the order in which it was handed over."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from data.files import keep_trying
from trainable.config import CheckpointConfig
from trainable.learning.state import TrainState
from trainable.run.checkpoint import HostCopy, take_snapshot, write_snapshot
from trainable.run.format import CheckpointInfo
from trainable.run.storage import owner, prune, write_checkpoint

log = logging.getLogger("bert_vits2_ray")
FAILURES_IN_A_ROW = 3


def nothing() -> None:
    """Nothing else to write."""


class Saver:
    """The thread that writes the run's folder: records as they come, and checkpoints from a snapshot of the state.

    A checkpoint that cannot be written is tried again for `retry_s` seconds. Then it is given up
    and said, and the run goes on to the next one; `problem` tells when it should not.
    """

    def __init__(self, folder: str, cfg: CheckpointConfig, owner: str | None = None):
        """Start the thread.

        Args:
            folder: folder or URI of the run.
            cfg: what is kept, and how long is tried.
            owner: of the folder, by `claim`: nothing is saved where another job has claimed it
                since; None: not asked.
        """
        self.folder, self.cfg, self.owner = folder, cfg, owner
        self.taken = ""  # over by whom
        self.thread = ThreadPoolExecutor(1, "saver")
        self.host = HostCopy()
        self.writing: Future[None] | None = None
        self.resumed = -1  # step that the run went on from
        self.saved: list[int] = []  # steps of the durable checkpoints since then
        self.failures, self.error = 0, ""  # in a row, and the last one

    def submit(self, write: Callable[[], None]) -> None:
        """Write something after all that was handed over before; what fails is said, and `write` keeps it in hand."""

        def attempt() -> None:
            try:
                write()
            except OSError as error:
                log.warning("%s: is written later", error)

        self.thread.submit(attempt)

    def save(
        self,
        state: TrainState,
        info: CheckpointInfo,
        config_yaml: str,
        first: Callable[[], None] = nothing,
    ) -> Future[None]:
        """Copy the state, and begin to write it; waits for the checkpoint before, whose memory is used again.

        Args:
            state: what is trained.
            info: of the checkpoint.
            config_yaml: of the run.
            first: what must be durable before the checkpoint: the records of the steps up to it.

        Returns:
            Done when the checkpoint is durable, or given up.
        """
        self.wait()
        snapshot = take_snapshot(state, info, config_yaml, self.host)

        def write() -> None:
            step, seconds = info.position.step, self.cfg.retry_s
            try:
                if (
                    self.owner
                    and (now := keep_trying(lambda: owner(self.folder), seconds)) != self.owner
                ):
                    self.taken = now.partition(" ")[2]
                    return
                keep_trying(first, seconds)
                write_files = partial(write_snapshot, snapshot)
                keep_trying(lambda: write_checkpoint(self.folder, step, write_files), seconds)
            except OSError as error:
                self.failures, self.error = (
                    self.failures + 1,
                    f"step {step} could not be saved: {error}",
                )
                log.error(
                    "%s; %d in a row, %d end the run", self.error, self.failures, FAILURES_IN_A_ROW
                )
                return
            self.failures = 0
            self.saved.append(step)
            try:
                prune(self.folder, self.saved, self.cfg, self.resumed)
            except OSError as error:
                log.warning("old checkpoints stay until the next one is saved: %s", error)

        self.writing = self.thread.submit(write)
        return self.writing

    def has(self, step: int) -> bool:
        """Whether the newest durable checkpoint, or that which the run went on from, is of this step."""
        return step in (self.resumed, *self.saved[-1:])

    def wait(self) -> None:
        """Until the checkpoint in flight is durable or given up."""
        if self.writing is not None:
            self.writing.result()

    def finish(self) -> None:
        """Until all that was handed over is written or given up."""
        self.thread.submit(nothing).result()

    def problem(self, last: bool) -> str | None:
        """Why the run should stop, if it should.

        Args:
            last: nothing comes after the checkpoint just saved, so that it must not fail.
        """
        if self.taken:
            return (
                f"another job trains the run {self.folder} ({self.taken}). This one, which was started earlier, stops; "
                "give one of them another run.name if both are wanted"
            )
        if self.failures < (1 if last else FAILURES_IN_A_ROW):
            return None
        return f"{self.error}. The last good state is the newest checkpoint: make room or mend the storage, and go on"

    def close(self) -> None:
        """Until everything is written or given up."""
        self.thread.shutdown()
