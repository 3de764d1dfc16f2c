"""A run's numbers for Prometheus: Ray exports them beside its own, on the node of the driver.

Ray puts `ray_` before each name. docs/monitoring.md lists them, and deploy/grafana.json shows them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ray.util.metrics import Gauge

from data.files import ascii_name
from job.on_ray.private import RunWatcher

PREFIX = "bert_vits2_"
RUN = "run"  # label of all: the run's name


@dataclass(frozen=True)
class Number:
    """A number of each report, or a family of them.

    Attributes:
        tag: its tag in the report; of a family, what their tags begin with.
        name: its name in Prometheus, behind PREFIX.
        meaning: what it is, in a few words.
        label: of a family, the label that tells its members apart; "" for a single number.
    """

    tag: str
    name: str
    meaning: str
    label: str = ""

    def of(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return its values in a report: value of the label -> number."""
        if not self.label:
            return {"": metrics[self.tag]} if self.tag in metrics else {}
        return {
            tag.removeprefix(self.tag): value
            for tag, value in metrics.items()
            if tag.startswith(self.tag)
        }


REPORTED = (
    Number("step", "step", "global steps done"),
    Number("epoch", "epoch", "epoch of the newest step"),
    Number("loss/", "loss", "losses of the newest step", "loss"),
    Number("grad_norm_", "grad_norm", "gradient norms of the newest step", "network"),
    Number("clipped_norm_", "clipped_norm", "the same after clipping, if it is clipped", "network"),
    Number("skipped_", "skipped_update", "1 where the newest step has left it out", "network"),
    Number("learning_rate", "learning_rate", "learning rate of the newest step"),
    Number("seconds", "step_seconds", "seconds that the newest step took"),
    Number("rate/utterances_per_s", "utterances_per_second", "utterances per second"),
    Number("share/waiting_for_data", "waiting_share", "share of the step waited for data"),
    Number("share/padding", "padding_share", "padded share of the spectrogram frames"),
    Number("memory/peak_gib", "peak_memory_gib", "most memory that rank 0 has had, in GiB"),
    Number("mfu", "mfu", "share of the device's best that rank 0 reaches (train.measure_mfu)"),
    Number("eval/", "score", "scores of the newest validation", "score"),
)
WORKERS, CHECKPOINTS, FAILURES, RESTARTS = "workers", "checkpoints", "failures", "restarts"
# Gauges too: they are 0 from the start on, where Ray's counters are absent before they first count
COUNTED = {
    WORKERS: "workers that train now",
    CHECKPOINTS: "checkpoints saved since this start of the driver",
    FAILURES: "failures of workers since this start of the driver",
    RESTARTS: "starts of the workers after the first one, since this start of the driver",
}


def exported() -> dict[str, str]:
    """Return what Prometheus knows of a run: name -> meaning."""
    meanings = {number.name: number.meaning for number in REPORTED} | COUNTED
    return {f"ray_{PREFIX}{name}": meaning for name, meaning in meanings.items()}


def in_ascii(value: str) -> str:
    """Return the value of a label: Ray's are ASCII, which names of runs and scorers may not be."""
    return value if value.isascii() else ascii_name(value)


class RunMetrics(RunWatcher):
    """Sets a run's numbers, in the process of its controller."""

    def __init__(self, run: str):
        """Prepare to set them.

        Args:
            run: name of the run.
        """
        self.run = run

    def begun(self) -> None:
        """Make them; what is counted begins at 0."""
        self.gauges = {
            number.name: self._made(number.name, number.meaning, number.label)
            for number in REPORTED
        }
        self.gauges |= {name: self._made(name, meaning) for name, meaning in COUNTED.items()}
        self.counts = dict.fromkeys(COUNTED, 0)
        for name in COUNTED:
            self._count(name, 0)
        self.starts = 0

    def reported(self, metrics: Mapping[str, float], checkpoint: str) -> None:
        """Set what a report says."""
        for number in REPORTED:
            for member, value in number.of(metrics).items():
                tags = {number.label: in_ascii(member)} if number.label else {}
                self.gauges[number.name].set(value, tags)
        if checkpoint:
            self._count(CHECKPOINTS)

    def workers_started(self, workers: int) -> None:
        """Count a start of the workers."""
        self._count(WORKERS, workers - self.counts[WORKERS])
        self._count(RESTARTS, min(self.starts, 1))
        self.starts += 1

    def workers_left(self) -> None:
        """Note that no workers train."""
        self._count(WORKERS, -self.counts[WORKERS])

    def failed(self) -> None:
        """Count a failure."""
        self._count(FAILURES)

    def _count(self, name: str, more: int = 1) -> None:
        self.counts[name] += more
        self.gauges[name].set(self.counts[name])

    def _made(self, name: str, meaning: str, label: str = "") -> Gauge:
        made = Gauge(PREFIX + name, meaning, (RUN, label) if label else (RUN,))
        made.set_default_tags({RUN: in_ascii(self.run)})
        return made
