"""What a run leaves for people and programs to read about its steps: metrics and TensorBoard."""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from trainable.config import NotFiniteConfig
from trainable.images import alignment_image, spectrogram_image
from trainable.learning.judgement import Spans
from trainable.learning.report import StepReport
from trainable.run.board import VERSION, Board, event_file, record
from trainable.run.fault_policy import FaultPolicy
from trainable.run.format import TENSORBOARD, TENSORBOARD_EVAL
from trainable.run.growing import GrowingFile
from trainable.run.metrics_file import MetricsFile

# category -> chart -> tags (regular expressions), of TensorBoard's tab Custom Scalars
LAYOUT = {
    "Evaluation": {
        "mel L1": (r"eval/(train_|ema_)?mel$",),
        "mel-cepstral distortion, dB": (r"eval/(ema_)?mcd(_sdp)?$",),
        "pitch error, ln Hz": (r"eval/(ema_)?log_f0_rmse(_sdp)?$",),
        "voicing error": (r"eval/(ema_)?vuv_error(_sdp)?$",),
        "length relative to the recording": (r"eval/(ema_)?duration_ratio(_sdp)?$",),
    },
    "Losses": {
        "generator": (r"loss/g/total$",),
        "mel L1, weighted": (r"loss/g/mel$",),
        "KL": (r"loss/g/kl$",),
        "discriminators": (r"loss/(?!g/)[^/]+/total$",),
    },
    "Speed": {
        "utterances per second": ("rate/utterances_per_s$",),
        "share of time and frames": ("share/",),
        "workers": ("workers$",),
    },
}
NAMED = 4  # micro-batches of a step whose CRCs stand in its line one by one


def _now(write: Callable[[], None]) -> None:
    write()


@dataclass
class PendingStep:
    """A step whose scalars still lie on the device.

    Attributes:
        fields: what stands in its line beside the scalars.
        report: what the step told.
        members: number of a micro-batch -> its utterances, for messages.
    """

    fields: dict
    report: StepReport
    members: Callable[[int], str]


@dataclass
class RunLog:
    """Collects the steps' reports, reads their scalars seldom and all at once, and writes them.

    Every rank reads the scalars, which are equal on all of them, so that all stop alike on a NaN.
    Rank 0 writes.

    Attributes:
        folder: folder or URI of the run.
        resume_step: step that the run resumes from.
        writes: whether this rank writes.
        not_finite: what happens when numbers blow up.
        loss_scaling: whether a scaler skips updates, as under fp16.
        passed_over: steps that roll-backs have passed over.
        clip: network -> norm that its gradients are clipped to, of those that are clipped.
        submit: does a piece of writing, perhaps beside the training.
        pending: steps whose scalars are not read yet.
        newest: line of the newest step that was read; empty before there is one.

    Raises:
        OSError: the records of earlier starts cannot be read or written.
    """

    folder: str
    resume_step: int
    writes: bool
    not_finite: NotFiniteConfig = field(default_factory=NotFiniteConfig)
    loss_scaling: bool = False
    passed_over: Spans = ()
    clip: Mapping[str, float] = field(default_factory=dict)
    submit: Callable[[Callable[[], None]], None] = _now
    pending: list[PendingStep] = field(default_factory=list)
    newest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy = FaultPolicy(self.not_finite, self.loss_scaling)
        if self.writes:
            self.metrics = MetricsFile(self.folder, self.resume_step, self.passed_over)
            self.board = Board(self.resume_step + 1)
            self.eval_board = Board(self.resume_step + 1)
            self.eval_board.layout(LAYOUT)
            self.events = _events(self.folder, TENSORBOARD)
            self.eval_events = _events(self.folder, TENSORBOARD_EVAL)

    def add(self, report: StepReport, members: Callable[[int], str] = str, **fields: float) -> None:
        """Remember a step.

        Args:
            report: what the step told.
            members: number of a micro-batch -> its utterances, for messages.
            **fields: stand in its line beside the scalars.
        """
        self.pending.append(PendingStep(fields, report, members))

    def flush(self) -> list[dict]:
        """Read and write the pending steps' scalars; return their lines.

        Raises:
            NotFiniteError: a loss or gradient is not finite or exploded, and the policy is not to
                continue; names the step, networks, losses and norms, and the utterances. What
                follows that step is forgotten.
        """
        pending = self.pending
        self.pending = []
        lines = [
            p.fields | values | _clipped(values, self.clip)
            for p, values in zip(pending, _read(pending), strict=True)
        ]

        error = None
        for number, (step, line) in enumerate(zip(pending, lines, strict=True), 1):
            error = self.policy.error_of(line, step.report.broken, step.members)
            if error is not None:
                pending = pending[:number]
                lines = lines[:number]
                break

        # the bad step is written too: its line tells what happened
        if self.writes:
            self._write(pending, lines)
        if error is not None:
            raise error
        if lines:
            self.newest = lines[-1]
        return lines

    @property
    def told(self) -> dict[str, float]:
        """What others are told of the newest step that was read: its finite numbers by tag."""
        return _told(self.newest) if self.newest else {}

    def _write(self, pending: list[PendingStep], lines: list[dict]) -> None:
        consumed = _consumed(pending)
        written = [_finite(v) | {"consumed": c} for v, c in zip(lines, consumed, strict=True)]
        self.submit(partial(self.metrics.add, written))

        for step, line in zip(pending, lines, strict=True):
            for tag, image in step.report.images.items():
                plot = alignment_image if tag.endswith("attn") else spectrogram_image
                self.board.image(tag, plot(image.float().cpu().numpy()), line["step"])

    def roll_back(self, step: int, passed_over: Spans) -> None:
        """Continue behind a step, whose data and that of other steps the run has passed over.

        Raises:
            OSError: the records cannot be read or written.
        """
        self.policy.roll_back()
        self.newest = {}  # of the weights before
        if self.writes:
            # what is in hand belongs before the marks
            self.metrics.persist()
            self.metrics = MetricsFile(self.folder, step, passed_over)

    def scalars(self, line: Mapping[str, float]) -> None:
        """Write a step's line to TensorBoard."""
        if self.writes:
            step = int(line["step"])
            for tag, value in _shown(line).items():
                self.board.scalar(tag, value, step)
            self.submit(partial(self.events.append, self.board.take()))

    def evaluation(
        self,
        step: int,
        scalars: Mapping[str, float],
        samples: Iterable[dict],
        sounds: Mapping[str, np.ndarray],
        sampling_rate: int,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        """Write a validation to TensorBoard.

        Args:
            step: global steps done.
            scalars: tag -> score.
            samples: syntheses with `text`, and `mels`, `alignments` and `audio` by tag.
            sounds: tag -> another sound, float32 [samples].
            sampling_rate: Hz, of all sounds.
            texts: tag -> what another sound says.
        """
        if not self.writes:
            return
        for tag, value in scalars.items():
            self.eval_board.scalar(tag, value, step)
        said = dict(texts or {})
        for sample in samples:
            for tag, mel in sample["mels"].items():
                self.eval_board.image(tag, spectrogram_image(mel), step)
            for tag, alignment in sample["alignments"].items():
                self.eval_board.image(tag, alignment_image(alignment), step)
            sounds = {**sample["audio"], **sounds}
            said |= dict.fromkeys(sample["audio"], sample["text"])
        for tag, wave in sounds.items():
            self.eval_board.audio(tag, wave, step, sampling_rate, said.get(tag, ""))
        self.submit(partial(self.eval_events.append, self.eval_board.take()))

    def persist(self) -> None:
        """Write all that was handed over.

        It is called by whatever does the writing, before a checkpoint of the steps up to now.

        Raises:
            OSError: something could not be written, and is kept.
        """
        if self.writes:
            for file in (self.metrics, self.events, self.eval_events):
                file.persist()

    def close(self) -> None:
        """Finish the files."""
        self.submit(self.persist)


def _shown(line: Mapping[str, float]) -> dict[str, float]:
    """Return what TensorBoard shows of a step's line: losses and norms, rates and shares."""
    numbers = {
        tag: value
        for tag, value in line.items()
        if tag.startswith(("loss/", "grad_norm", "clipped_norm", "skipped_"))
    }
    seconds = line["seconds"]
    return numbers | {
        "learning_rate": line["lr"],
        "epoch": line["epoch"],
        "workers": line["world_size"],
        "rate/steps_per_s": 1 / seconds,
        "rate/utterances_per_s": line["utterances"] / seconds,
        "share/padding": line["padding"],
        "share/waiting_for_data": line["seconds_waiting"] / seconds,
        "memory/peak_gib": line["peak_gib"],
        **{tag: line[tag] for tag in ("mfu",) if tag in line},
    }


def _told(line: Mapping[str, float]) -> dict[str, float]:
    """Return what is told of a step: what TensorBoard shows, with the step and its seconds."""
    told = _shown(line) | {tag: line[tag] for tag in ("step", "epoch", "seconds")}
    return {tag: value for tag, value in told.items() if math.isfinite(value)}


def _events(folder: str, below: str) -> GrowingFile:
    """Return a new event file of a session; in an object store each part is a new one."""

    def part(_: str = "") -> str:
        return f"{below}/{event_file()}"

    return GrowingFile(folder, part(), part, record(VERSION))


def _read(pending: list[PendingStep]) -> list[dict[str, float]]:
    """Read the scalars of all pending steps with one copy from the device.

    Losses that a step does not have are left out.
    """
    if not pending:
        return []
    values: Tensor = torch.stack(
        [torch.stack([v.double() for v in p.report.scalars.values()]) for p in pending]
    )
    present = torch.stack([p.report.present for p in pending])
    return [
        _line(p.report, row, there)
        for p, row, there in zip(pending, values.tolist(), present.tolist(), strict=True)
    ]


def _line(report: StepReport, values: list[float], present: list[bool]) -> dict[str, float]:
    """Return the scalars of a step: its losses, and behind them its norms.

    Args:
        report: what the step told.
        values: its scalars, read from the device.
        present: which of its losses it has; the others are left out.
    """
    line = dict(zip(report.scalars, values, strict=True))
    losses = list(line)[: len(present)]
    absent = {tag for tag, there in zip(losses, present, strict=True) if not there}
    return {tag: value for tag, value in line.items() if tag not in absent}


def _clipped(line: Mapping[str, float], clip: Mapping[str, float]) -> dict[str, float]:
    """Return the gradient norms after clipping, of the networks that are clipped, by tag."""
    before = {name: line[f"grad_norm_{name}"] for name in clip}
    # one that is not finite is what it is: the step is not taken
    return {
        f"clipped_norm_{name}": min(norm, clip[name]) if math.isfinite(norm) else norm
        for name, norm in before.items()
    }


def _consumed(pending: list[PendingStep]) -> list[list[int]]:
    """Return what tells each step's utterances: the CRC-32 of each of its G micro-batches.

    Of more than NAMED micro-batches it is one number, the CRC-32 of theirs (uint32, little-endian):
    a line of hundreds would be most of the file.
    """
    if not pending:
        return []
    steps = torch.stack([p.report.consumed for p in pending]).long().tolist()
    return [step if len(step) <= NAMED else [_joined(step)] for step in steps]


def _joined(crcs: list[int]) -> int:
    return zlib.crc32(np.array(crcs, "<u4").tobytes())


def _finite(line: dict) -> dict:
    # JSON knows no NaN: other readers would refuse the whole file
    return {tag: v if math.isfinite(v) else str(v) for tag, v in line.items()}
