"""Whether a run is alive, and how it has ended: `status.json` in its folder. Needs no torch.

The driver writes it when it starts, again every EVERY_S seconds, and when the run has ended. A
driver that was killed writes no more, so that its run shows as lost once the next beat is overdue.
Times are compared with a tolerance, as the reader's clock may differ. Nothing depends on the file:
if it cannot be written, that is logged once.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from data.files import below, put_file, read_file
from trainable.run.format import STATUS
from trainable.run.storage import owner

log = logging.getLogger("bert_vits2_ray")
EVERY_S = 30.0
MISSED = 3  # beats, before a run counts as lost
CLOCKS_DIFFER_S = 60.0
RUNNING, STOPPED, FINISHED, FAILED, LOST = "running", "stopped", "finished", "failed", "lost"


@dataclass(frozen=True)
class Status:
    """What a run's folder says of whoever trains it.

    Attributes:
        state: RUNNING, STOPPED, FINISHED or FAILED.
        time: when this was written, in ISO 8601 with its zone.
        interval_s: seconds from one beat to the next.
        step: global steps done, where it has ended.
        error: why it has failed, in one line.
    """

    state: str
    time: str
    interval_s: float = EVERY_S
    step: int | None = None
    error: str = ""

    def seen(self, now: datetime) -> str:
        """Return the state as it is to be taken at a time: LOST if the next beat is overdue."""
        allowed = timedelta(seconds=MISSED * self.interval_s + CLOCKS_DIFFER_S)
        overdue = now - datetime.fromisoformat(self.time) > allowed
        return LOST if self.state == RUNNING and overdue else self.state


def read_status(folder: str) -> Status | None:
    """Return what a run's folder says; None if that cannot be told, as in a run of older code.

    Args:
        folder: folder or URI of the run.
    """
    try:
        raw = json.loads(read_file(below(folder, STATUS)))
        status = Status(**{key: raw[key] for key in raw if key in Status.__dataclass_fields__})
        status.seen(datetime.now(UTC))
    except (OSError, AttributeError, TypeError, ValueError, RecursionError):
        return None
    return status if status.state in (RUNNING, STOPPED, FINISHED, FAILED) else None


def write_status(
    folder: str, ours: str, state: str, step: int | None = None, error: str = ""
) -> str:
    """Write how a run stands, unless another job has claimed its folder.

    Args:
        folder: folder or URI of the run.
        ours: our claim of the folder.
        state: RUNNING, STOPPED, FINISHED or FAILED.
        step: global steps done, where it has ended.
        error: why it has failed, in one line.

    Returns:
        Why that was not possible; "" if it was.
    """
    status = Status(state, datetime.now(UTC).isoformat(timespec="seconds"), EVERY_S, step, error)
    try:
        if owner(folder) == ours:
            put_file(below(folder, STATUS), json.dumps(asdict(status), ensure_ascii=False).encode())
    except (OSError, ValueError) as failed:
        return str(failed)
    return ""


class Heartbeat:
    """Tells in a run's folder that it runs, and at last how it has ended."""

    def __init__(self, folder: str, ours: str):
        """Prepare to tell.

        Args:
            folder: folder or URI of the run.
            ours: our claim of the folder.
        """
        self.folder = folder
        self.ours = ours
        self.over = threading.Event()
        self.writing = threading.Lock()  # the end must be written last
        self.fails = False

    def ended(self, state: str, step: int | None = None, error: str = "") -> None:
        """Tell how the run has ended."""
        self.over.set()
        with self.writing:
            write_status(self.folder, self.ours, state, step, error)

    def beat(self) -> None:
        """Tell that the run runs, unless it has ended."""
        with self.writing:
            failed = "" if self.over.is_set() else write_status(self.folder, self.ours, RUNNING)
            if failed and not self.fails:
                log.warning("%s is not written, job.runs may call the run lost: %s", STATUS, failed)
            self.fails = bool(failed)

    def _go_on(self) -> None:
        self.beat()
        while not self.over.wait(EVERY_S):
            self.beat()


@contextlib.contextmanager
def beating(folder: str, ours: str) -> Iterator[Heartbeat]:
    """Tell that a run runs, for as long as the block lasts; whoever leaves it tells how it ended.

    Args:
        folder: folder or URI of the run.
        ours: our claim of the folder.
    """
    heart = Heartbeat(folder, ours)
    # beside the training, as a store may take its time to answer
    thread = threading.Thread(target=heart._go_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield heart
    finally:
        heart.over.set()
