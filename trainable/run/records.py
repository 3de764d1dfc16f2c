"""What a run leaves for people and programs to read: metrics.jsonl and TensorBoard, right after a resume too."""

import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import fsspec
import numpy as np
import torch
from torch import Tensor

from data.files import put_file, reachable
from trainable.config import NotFiniteConfig
from trainable.learning.judgement import Spans
from trainable.learning.not_finite import OVERFLOWS_IN_A_ROW, NotFiniteError, describe, faults
from trainable.learning.step import StepReport
from trainable.run.board import VERSION, Board, event_file, record
from trainable.run.growing import GrowingFile
from trainable.run.plots import alignment_image, spectrogram_image

log = logging.getLogger("bert_vits2_ray")


def _now(write: Callable[[], None]) -> None:
    write()


@dataclass
class PendingStep:
    """A step whose scalars still lie on the device."""

    fields: dict
    report: StepReport
    members: Callable[[int], str]


class MetricsFile(GrowingFile):
    """`metrics.jsonl`: one JSON object a global step, no step missing and none twice.

    On a local disk it is one file; on an object store, which cannot append, `metrics/<first
    step>.jsonl` parts.
    """

    def __init__(self, folder: str, resume_step: int, passed_over: Spans = ()):
        """Open the run's file and forget what lies behind a step.

        It is read from its end to a line that is as it must be, no further: a run of days leaves
            thousands of parts.
        The lines before that one are so too. A roll-back passes over the last steps; and where the
        run goes on from among them, because it was killed before it had saved itself, those up to
        that step are the last ones again.

        Args:
            folder: folder or URI of the run.
            resume_step: where the run goes on.
            passed_over: steps that roll-backs have passed over; their lines have `"rolled_back":
                true`.

        Raises:
            OSError: it cannot be read or written.
        """
        super().__init__(folder, "metrics.jsonl", "metrics/{}.jsonl".format)
        with reachable(folder):
            fs, root = fsspec.core.url_to_fs(folder)
            paths = fs.glob(f"{root}/metrics.jsonl") if self.local else _parts(fs, root)
            if (
                later := []
                if self.local
                else [path for path in paths if _first_step(path) > resume_step]
            ):
                fs.rm(later)
            for path in reversed(paths[: len(paths) - len(later)]):
                content = fs.cat_file(path)
                size, lines = _mended(content, resume_step, passed_over)
                if self.local and not lines:
                    os.truncate(self.local, size)
                elif content[size:] != lines:
                    put_file(fs.unstrip_protocol(path), content[:size] + lines)
                if size:
                    break

    def add(self, lines: list[dict]) -> None:
        """Add the lines of consecutive steps.

        Raises:
            OSError: they could not be written, and are still in hand.
        """
        if lines:
            self.append(_lines(lines), f"{lines[0]['step']:09d}")


def read_metrics(folder: str) -> list[dict]:
    """All steps of a run's metrics, in order, from a local folder or an object store; empty for a new run."""
    with reachable(folder):
        fs, root = fsspec.core.url_to_fs(folder)
        paths = (
            [f"{root}/metrics.jsonl"] if fs.exists(f"{root}/metrics.jsonl") else _parts(fs, root)
        )
        return [line for path in paths for line in _parsed(fs.cat_file(path))]


def _parsed(content: bytes) -> list[dict]:
    """The lines of a file; a process that was killed may have left half a line at the end."""
    return [json.loads(line) for line in content.splitlines() if line.endswith(b"}")]


def _parts(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    fs.invalidate_cache()
    return sorted(fs.glob(f"{root}/metrics/*.jsonl"))


def _first_step(part: str) -> int:
    return int(part.rpartition("/")[2].removesuffix(".jsonl"))


def _mended(content: bytes, resume_step: int, passed_over: Spans) -> tuple[int, bytes]:
    """A file's lines up to a step, those that were passed over marked: bytes that stay, and the lines behind them."""
    changed, end = list[dict](), len(content)
    while end:
        begin = content.rfind(b"\n", 0, end - 1) + 1
        if content[begin:end].endswith(b"}\n"):  # not half a line of a process that was killed
            line = json.loads(content[begin:end])
            wanted = {tag: v for tag, v in line.items() if tag != "rolled_back"}
            if any(first <= line["step"] <= last for first, last in passed_over):
                wanted["rolled_back"] = True
            if line["step"] <= resume_step:
                if line == wanted:
                    break
                changed.append(wanted)
        end = begin
    return end, _lines(reversed(changed))


def _lines(objects: Iterable[dict]) -> bytes:
    return "".join(json.dumps(o) + "\n" for o in objects).encode()


@dataclass
class RunLog:
    """Collects the steps' reports, reads their scalars seldom and all at once, and writes them (rank 0 writes).

    Every rank reads the scalars, which are equal on all of them, so that every rank stops alike on
    a NaN.

    Raises:
        OSError: the records of earlier starts cannot be read or written.
    """

    folder: str
    resume_step: int
    writes: bool
    not_finite: NotFiniteConfig = field(default_factory=NotFiniteConfig)
    loss_scaling: bool = False  # fp16
    passed_over: Spans = ()  # steps that roll-backs have passed over
    # does a piece of writing, perhaps beside the training
    submit: Callable[[Callable[[], None]], None] = _now
    in_a_row: int = 0  # steps with a left-out update, up to the last one read
    # gradient norm -> steps in a row where it is not finite
    overflows: dict[str, int] = field(default_factory=dict)
    pending: list[PendingStep] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.writes:
            self.metrics = MetricsFile(self.folder, self.resume_step, self.passed_over)
            self.board, self.eval_board = Board(self.resume_step + 1), Board(self.resume_step + 1)
            self.events, self.eval_events = (
                _events(self.folder, f"tensorboard{below}") for below in ("", "/eval")
            )

    def add(self, report: StepReport, members: Callable[[int], str] = str, **fields: float) -> None:
        """Remember a step.

        Args:
            report: what it told.
            members: the utterances of its micro-batch of this number, for messages.
            **fields: stand in its line beside the scalars.
        """
        self.pending.append(PendingStep(fields, report, members))

    def flush(self) -> list[dict]:
        """Read and write the pending steps' scalars; returns their lines.

        Raises:
            NotFiniteError: a loss or gradient is not finite or exploded, and the policy is not to
                go on; names the step, networks, losses and norms, and the utterances. What follows
                that step is forgotten.
        """
        pending, self.pending = self.pending, []
        lines = [p.fields | values for p, values in zip(pending, _read(pending), strict=True)]
        error = None
        for number, (p, line) in enumerate(zip(pending, lines, strict=True), 1):
            if (error := self.judge(p, line)) is not None:
                pending, lines = pending[:number], lines[:number]
                break
        if self.writes:
            consumed = _consumed(pending)
            written = [_finite(v) | {"consumed": c} for v, c in zip(lines, consumed, strict=True)]
            self.submit(partial(self.metrics.add, written))
            for p, line in zip(pending, lines, strict=True):
                for tag, image in p.report.images.items():
                    plot = alignment_image if tag.endswith("attn") else spectrogram_image
                    self.board.image(tag, plot(image.float().cpu().numpy()), line["step"])
        if error is not None:
            raise error
        return lines

    def judge(self, step: PendingStep, line: Mapping[str, float]) -> NotFiniteError | None:
        """The error that ends the steps at this one; or None, where all is well or its update was left out."""
        for tag in filter(lambda tag: tag.startswith("grad_norm_"), line):
            self.overflows[tag] = 0 if math.isfinite(line[tag]) else self.overflows.get(tag, 0) + 1
        tolerated = [
            tag
            for tag, n in self.overflows.items()
            if self.loss_scaling and n <= OVERFLOWS_IN_A_ROW
        ]
        bad = faults(line, self.not_finite.max_grad_norm, tolerated)
        if not bad:
            self.in_a_row = 0
            return None
        broken = step.report.broken.tolist()
        members = {slot: step.members(slot) for slot in range(len(broken))}
        what = describe(line, bad, members, [slot for slot, of in enumerate(broken) if of])
        if self.loss_scaling and max(self.overflows.values(), default=0) > OVERFLOWS_IN_A_ROW:
            what += f". It was so in more than {OVERFLOWS_IN_A_ROW} steps in a row: no loss scale helps, try bf16"
        self.in_a_row += 1
        policy = self.not_finite.policy
        if policy == "stop":
            what += ". The last good state is the newest checkpoint; see train.not_finite"
        elif policy == "skip":
            if self.in_a_row <= self.not_finite.max_in_a_row:
                left_out = [
                    tag.removeprefix("skipped_")
                    for tag, v in line.items()
                    if tag.startswith("skipped_") and v
                ]
                log.warning(
                    "%s. The update of %s is left out", what, ", ".join(left_out) or "no network"
                )
                return None
            what += f". {self.in_a_row} such steps in a row are more than train.not_finite.max_in_a_row allows"
        return NotFiniteError(what, int(line["step"]))

    def roll_back(self, step: int, passed_over: Spans) -> None:
        """The run goes on behind a step, whose data and that of other steps it has passed over.

        Raises:
            OSError: the records cannot be read or written.
        """
        self.overflows.clear()  # the checkpoint has a loss scale of its own
        if self.writes:
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
    ) -> None:
        """Write a validation: scalars, the seed's images and audio of each sample, and other sounds."""
        if not self.writes:
            return
        for tag, value in scalars.items():
            self.eval_board.scalar(tag, value, step)
        for sample in samples:
            for part, plot in (("mels", spectrogram_image), ("alignments", alignment_image)):
                for tag, values in sample[part].items():
                    self.eval_board.image(tag, plot(values), step)
            sounds = {**sample["audio"], **sounds}
        for tag, wave in sounds.items():
            self.eval_board.audio(tag, wave, step, sampling_rate)
        self.submit(partial(self.eval_events.append, self.eval_board.take()))

    def persist(self) -> None:
        """Write all that was handed over; by whatever does the writing, before a checkpoint of the steps up to now.

        Raises:
            OSError: something could not be written, and is still in hand.
        """
        if self.writes:
            for file in (self.metrics, self.events, self.eval_events):
                file.persist()

    def close(self) -> None:
        """Finish the files."""
        self.submit(self.persist)


def _shown(line: Mapping[str, float]) -> dict[str, float]:
    """What TensorBoard shows of a step's line: its losses and norms, and rates and shares."""
    seconds = line["seconds"]
    return {
        tag: value
        for tag, value in line.items()
        if tag.startswith(("loss/", "grad_norm", "skipped_"))
    } | {
        "learning_rate": line["lr"],
        "epoch": line["epoch"],
        "workers": line["world_size"],
        "rate/steps_per_s": 1 / seconds,
        "rate/utterances_per_s": line["utterances"] / seconds,
        "share/padding": line["padding"],
        "share/waiting_for_data": line["seconds_waiting"] / seconds,
        "memory/peak_gib": line["peak_gib"],
    }


def _events(folder: str, below: str) -> GrowingFile:
    """A new event file of a session; in an object store a new one each time."""
    return GrowingFile(
        folder, f"{below}/{event_file()}", lambda _: f"{below}/{event_file()}", record(VERSION)
    )


def _read(pending: list[PendingStep]) -> list[dict[str, float]]:
    """The scalars of all pending steps with one copy from the device; losses that a step does not have are left out."""
    if not pending:
        return []
    values: Tensor = torch.stack(
        [torch.stack([v.double() for v in p.report.scalars.values()]) for p in pending]
    )
    rows = values.tolist()
    lines = [
        dict(zip(p.report.scalars, row, strict=True)) for p, row in zip(pending, rows, strict=True)
    ]
    return [
        {t: v for t, v in line.items() if not (math.isnan(v) and _per_utterance(t))}
        for line in lines
    ]


def _consumed(pending: list[PendingStep]) -> list[list[int]]:
    """CRC-32 of each step's micro-batches."""
    return torch.stack([p.report.consumed for p in pending]).long().tolist() if pending else []


def _per_utterance(tag: str) -> bool:
    """Whether a loss has a value an utterance, so that a small micro-batch lacks the last of them."""
    return tag.startswith(("loss/dur_disc_r/", "loss/dur_disc_g/", "loss/g/dur_gen_"))


def _finite(line: dict) -> dict:
    return {tag: v if math.isfinite(v) else str(v) for tag, v in line.items()}
