"""A training step of the full model, timed: `python -m benchmarks.step [--batch 4] [--frames 400]`.

With --as-reference the same step with the reference trainer's redundant work
(benchmarks.as_reference) runs in turn with ours, and with --against-fp32 our own in fp32. Seconds
are medians, and a ratio is the median of the pairs' ratios. WavLM has the size of base-plus and
random weights, and text and sound are random; nothing is downloaded, and Ray is not needed.
"""

import argparse
import copy
import json
import math
import resource
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import WavLMConfig, WavLMModel

from benchmarks.as_reference import AsReferenceStep, drawn_on_the_host
from benchmarks.parts import FlopCount, KeptForBackward, in_parts
from data.config import DataConfig
from data.stream.collate import TtsBatch, to_batch
from data.text.front_end import expand_word2ph, to_sequence
from data.text.languages import PUBLISHED
from data.text.symbols import SYMBOLS
from job.reports.console import cell, table
from trainable.compiling import not_compiled
from trainable.config import TrainConfig
from trainable.flops import attainable, peak, seconds
from trainable.hardware import set_up_torch
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.model_config import ModelConfig
from trainable.networks.wavlm import WavLMFeatures

# times -> name of their ratio to seconds_per_step
RATIOS = {"as_reference_seconds_per_step": "ratio", "fp32_seconds_per_step": "ratio_to_fp32"}
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def synthetic_batch(
    utterances: int, frames: int, tokens: int, model: ModelConfig, data: DataConfig
) -> TtsBatch:
    """Return a batch of random text and sound.

    Args:
        utterances: number of utterances, of the languages in turn.
        frames: frames of each utterance.
        tokens: phones of each utterance, without the blanks: the networks read 2 * tokens + 1.
        model: width of the BERT features, and number of speakers.
        data: parameters of the STFT.
    """
    rng = np.random.default_rng(0)
    rows = []
    for i in range(utterances):
        language = PUBLISHED[i % len(PUBLISHED)]
        phones = [SYMBOLS[j] for j in rng.integers(1, len(SYMBOLS) - 2, tokens)]
        word2ph = np.full(max(1, tokens // 2), 2)
        word2ph[-1] += tokens - word2ph.sum()
        tones = rng.integers(0, language.tones, tokens)
        sequence = to_sequence(phones, tones.tolist(), language.code)
        rows.append((*sequence, expand_word2ph(word2ph.tolist())))
    x, tone, language_ids, token_index = (np.stack(column) for column in zip(*rows, strict=True))
    sounds = 0.1 * rng.standard_normal((utterances, 1, frames * data.hop_length), dtype=np.float32)
    bert = rng.standard_normal(
        (utterances, int(token_index.max()) + 1, model.bert_channels), dtype=np.float32
    )
    arrays = {
        "rows": np.arange(utterances),
        "x": x,
        "tone": tone,
        "language": language_ids,
        "token_index": token_index,
        "x_lengths": np.full(utterances, x.shape[1]),
        "bert": bert.astype(np.float16),
        "y": sounds,
        "y_lengths": np.full(utterances, sounds.shape[2]),
        "spec_lengths": np.full(utterances, frames),
        "speakers": np.arange(utterances) % model.n_speakers,
    }
    return to_batch(arrays).with_spectrogram(data)


def full_state(
    train: TrainConfig, model: ModelConfig, data: DataConfig, device: torch.device
) -> TrainState:
    """Return the full 2.3 model with a random WavLM of base-plus size, transformers' default."""
    torch.manual_seed(0)
    slm = WavLMFeatures(WavLMModel(WavLMConfig()), data.sampling_rate).to(device)
    nets = {name: net.to(device) for name, net in build_networks(model, train, data, slm).items()}
    return TrainState(nets, slm, model, train)


class Subject:
    """A step, ours or as the reference's, with its batch.

    Attributes:
        first_s: seconds of its first step, in which parts are compiled; see `warm`.
    """

    first_s = float("nan")

    def __init__(self, step: TrainingStep, batch: TtsBatch):
        self.step = step
        self.batch = batch
        self.clock = seconds(step.device)

    def run(self) -> dict[str, float]:
        """Do one global step; return its scalars."""
        return {tag: value.item() for tag, value in self.step([(0, self.batch)]).scalars.items()}

    def timed(self) -> float:
        """Return the seconds of a step."""
        begin = self.clock()
        self.run()
        return self.clock() - begin

    def counted(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Return a step's scalars and FLOPs: by torch's formulas, corrected, and these by part."""
        with (
            not_compiled(self.step.train),
            FlopCount() as count,
            in_parts(self.step, count.corrected.get_total_flops) as parts,
        ):
            scalars = self.run()
        return scalars, {
            "flops": count.torch.get_total_flops(),
            "flops_corrected": count.corrected.get_total_flops(),
            "flops_by_part": parts,
        }

    def kept(self) -> int:
        """Return the most bytes that a step keeps at once for its backward passes."""
        state = self.step.state
        kept = KeptForBackward(
            w for net in [*state.nets.values(), state.slm] for w in net.parameters()
        )
        with kept.watch():
            self.run()
        return kept.most

    def breakdown(self) -> dict[str, float]:
        """Return a step's seconds by part; the parts' clocks make the whole a little slower."""
        with in_parts(self.step, self.clock) as parts:
            self.run()
        return parts


def warm(own: Subject) -> Subject:
    """Run a step twice: the second time moments, plans and compiled parts are there."""
    own.first_s = own.timed()
    own.run()
    return own


def peak_of_a_step(own: Subject, device: torch.device) -> float:
    """Return the most memory that a step takes, GiB."""
    peak_gib(device, reset=True)
    own.run()
    return peak_gib(device)


def rewound(state: TrainState) -> Callable[[], None]:
    """Return a function that restores the present weights and the optimizers' beginning."""
    weights = {name: copy.deepcopy(net.state_dict()) for name, net in state.nets.items()}

    def rewind() -> None:
        for name, net in state.nets.items():
            net.load_state_dict(weights[name])
            state.optimizers[name].state.clear()

    return rewind


def largest_difference(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the largest relative difference of any loss or gradient norm."""
    both = [(one[tag], other[tag]) for tag in one if not math.isnan(one[tag])]
    return max(abs(a - b) / max(abs(a), abs(b), 1e-9) for a, b in both)


def peak_gib(device: torch.device, reset: bool = False) -> float:
    """Return the most memory so far: of the process, or on a GPU of its tensors, GiB.

    Args:
        device: device that computes.
        reset: whether to start from zero afterwards, if the system allows it.
    """
    if device.type == "cuda":
        peak_bytes = torch.cuda.max_memory_allocated(device)
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return peak_bytes / 2**30
    if reset and CLEAR.exists():
        CLEAR.write_text("5", encoding="utf-8")
    if STATUS.exists():
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line[:6] == "VmHWM:") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of the command line's step."""
    device = torch.device(args.device)
    train = TrainConfig(
        precision=args.precision,
        activation_checkpointing=args.checkpointing,
        compile="parts" if args.compile else "off",
    )
    model = ModelConfig()
    data = DataConfig()
    set_up_torch(train, args.threads, device)
    state = full_state(train, model, data, device)
    batch = synthetic_batch(args.batch, args.frames, args.tokens, model, data).to(device)

    ours = Subject(TrainingStep(state, train, data), batch)
    rewind = rewound(state)
    peak_gib(device, reset=True)
    scalars, result = ours.counted()
    result["peak_gib"] = peak_gib(device)
    if args.compile:  # the counts are without
        result |= {"first_step_s": warm(ours).first_s, "peak_gib": peak_of_a_step(ours, device)}
    result["kept_gib"] = ours.kept() / 2**30
    subjects = {"seconds_per_step": ours}
    if args.as_reference:
        theirs = Subject(AsReferenceStep(state, train, data), batch)
        subjects["as_reference_seconds_per_step"] = theirs
        result |= beside(theirs, scalars, rewind, device)
    if args.against_fp32:
        fp32 = replace(train, precision="fp32")
        step = TrainingStep(full_state(fp32, model, data, device), fp32, data)
        subjects["fp32_seconds_per_step"] = Subject(step, batch)
        subjects["fp32_seconds_per_step"].run()

    result |= in_turn(subjects, args.pairs)
    best = peak(device, args.precision)
    result["attainable_flops"] = attainable(device, args.precision) if best is None else best
    flops_per_s = result["flops_corrected"] / result["seconds_per_step"]
    result["mfu"] = flops_per_s / result["attainable_flops"]
    return result | {"breakdown": ours.breakdown(), "torch": torch.__version__}


def in_turn(subjects: Mapping[str, Subject], pairs: int) -> dict[str, Any]:
    """Time each subject `pairs` times, in turn and in alternating order.

    Returns:
        Medians, ratios to ours, and all times.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for pair in range(pairs):
        for name, subject in list(subjects.items())[:: -1 if pair % 2 else 1]:
            times[name].append(subject.timed())
    ours = times["seconds_per_step"]
    ratios = {
        key: median(other / own for other, own in zip(times[name], ours, strict=True))
        for name, key in RATIOS.items()
        if name in times
    }
    return {name: median(values) for name, values in times.items()} | ratios | {"times": times}


def beside(
    theirs: Subject, scalars: Mapping[str, float], rewind: Callable[[], None], device: torch.device
) -> dict:
    """Return FLOPs and memory of the reference's work, from the same start as ours.

    Args:
        theirs: the step with the reference's work.
        scalars: scalars of our step, which theirs must equal.
        rewind: restores the start.
        device: device that computes.
    """
    if device.type == "cuda":
        # ours once more, with the random numbers that the other one draws on the host
        rewind()
        step = theirs.step
        with drawn_on_the_host():
            ours = Subject(TrainingStep(step.state, step.train, step.data), theirs.batch)
            scalars = ours.run()
    rewind()
    peak_gib(device, reset=True)
    own, counted = theirs.counted()
    difference = largest_difference(scalars, own)
    allowed = 1e-3 if theirs.step.train.precision == "fp32" else 0.05
    return {
        "as_reference_flops": counted["flops"],
        "as_reference_flops_corrected": counted["flops_corrected"],
        "as_reference_flops_by_part": counted["flops_by_part"],
        "as_reference_peak_gib": peak_gib(device),
        "largest_loss_difference": difference,
        "losses_agree": difference <= allowed,
    }


def parts_table(result: Mapping[str, Any]) -> str:
    """Return FLOPs and seconds by part as a table."""
    columns = {"GFLOP": _scaled(result["flops_by_part"], 1e-9), "s": result["breakdown"]}
    if "as_reference_flops_by_part" in result:
        columns["GFLOP as reference"] = _scaled(result["as_reference_flops_by_part"], 1e-9)

    names = dict.fromkeys(name for values in columns.values() for name in values)
    rows = [[name, *(values.get(name, 0.0) for values in columns.values())] for name in names]
    rows.append(["all", *(sum(values.values()) for values in columns.values())])
    cells = [[name, *(cell(value, ".2f") for value in values)] for name, *values in rows]
    return table(["part", *columns], cells, align_right=True)


def _scaled(values: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: factor * value for name, value in values.items()}


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--frames", type=int, default=400)
    made.add_argument(
        "--tokens", type=int, default=120, help="phones, without the blanks between them"
    )
    made.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument(
        "--compile", action="store_true", help="torch.compile, for the parts where it pays"
    )
    made.add_argument(
        "--checkpointing", action="store_true", help="with train.activation_checkpointing"
    )
    made.add_argument(
        "--as-reference",
        action="store_true",
        help="time the reference's redundant work beside ours",
    )
    made.add_argument(
        "--against-fp32", action="store_true", help="time our own step in fp32 beside it"
    )
    made.add_argument("--pairs", type=int, default=7, help="steps that are timed, of each kind")
    made.add_argument("--json", type=Path, help="write the figures")
    return made


def main() -> None:
    """Run the command."""
    args = command_line().parse_args()
    result = measure(args)
    print(parts_table(result))
    single = {key: value for key, value in result.items() if not isinstance(value, dict)}
    print(json.dumps(single, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    # last, as all that was measured is worth reading all the same
    if not result.get("losses_agree", True):
        difference = result["largest_loss_difference"]
        raise SystemExit(f"the two steps compute other losses: {difference:.2g} apart")


if __name__ == "__main__":
    main()
