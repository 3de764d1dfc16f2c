"""How an epoch is cut into micro-batches: `data.plan`."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, Literal

from data.settings.declared import Amount, Count, Range, Settings, Size

Multiple = Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class PadTo(Settings, section="data.plan.pad_to"):
    """Multiples that the lengths of a micro-batch are padded to, so that few of them differ.

    A GPU's libraries plan each convolution once per shape, which takes the host about as long as
    the convolution takes the GPU; `python -m benchmarks.plans` counts the plans and the padding.

    Attributes:
        frames: multiple of the frames of a micro-batch; 1: as long as its longest utterance.
        tokens: multiple of its phones with their blanks.
    """

    frames: Multiple = 16
    tokens: Multiple = 64


@dataclass(frozen=True)
class CostConfig(Settings, section="data.plan.cost"):
    """What a micro-batch is predicted to cost, and what it may cost (`data.plan.mode: cost`).

    A micro-batch of B utterances padded to F frames costs `micro_batch` + B x (`utterance` +
    `frame` x F + `cell` x F x F). The unit is free. The defaults are GFLOP of the full model's
    training step; `python -m benchmarks.batch_finder --fit RUN` fits them to a run's seconds.

    Attributes:
        budget: most that a micro-batch may cost; an utterance that costs more is alone in its own.
        micro_batch: cost of each micro-batch, however little it holds.
        utterance: cost of each utterance, whatever its length: its segment is decoded and judged.
        frame: cost of each padded frame.
        cell: cost of each cell of an utterance's self-attention, padded frames x padded frames.
    """

    budget: Annotated[float, Range(above=0)] = 6600.0
    micro_batch: Amount = 0.0
    utterance: Amount = 256.0
    frame: Amount = 0.25
    cell: Amount = 2e-5

    def problems(self) -> Iterator[str]:
        """Yield costs by which nothing costs anything, or everything too much."""
        if not (self.utterance or self.frame or self.cell):
            yield (
                "data.plan.cost.utterance, frame and cell are all 0: give one of them a cost, or "
                "set data.plan.mode to budget"
            )
        if self.micro_batch >= self.budget:
            yield (
                f"data.plan.cost.micro_batch is {self.micro_batch:g}: it must be below "
                f"data.plan.cost.budget, which is {self.budget:g}"
            )


FRAMES_OF_BUDGET = 8000
UTTERANCES_OF_BUDGET = 64


@dataclass(frozen=True)
class PlanConfig(Settings, section="data.plan"):
    """How an epoch is cut into micro-batches (data.plan.epoch_plan).

    Attributes:
        mode: `cost` cuts by predicted cost, `budget` by padded frames alone, `buckets` by the
            reference's boundaries with a fixed count; `auto`: as the run began, and `cost` for a
            new one, as the run's config.yaml then says.
        max_frames: most padded spectrogram frames of a micro-batch (batch size x longest
            utterance), which bounds the memory; none: no bound but the cost (`budget`: 8000).
        max_utterances: largest number of utterances per micro-batch (`buckets`: exactly this
            many); none: no bound but the cost (`budget` and `buckets`: 64).
        max_cells: most cells of the alignment in a micro-batch (batch size x frames of the longest
            x most phones with their blanks); none: no bound.
        cost: what a micro-batch may cost.
        bucket_boundaries: frames at which the reference's buckets begin and end.
        pad_to: multiples that the lengths of a micro-batch are padded to.
    """

    mode: Literal["auto", "cost", "budget", "buckets"] = "auto"
    max_frames: Count | None = None
    max_utterances: Count | None = None
    max_cells: Count | None = None
    cost: CostConfig = field(default_factory=CostConfig)
    bucket_boundaries: Annotated[tuple[Annotated[int, Range(0)], ...], Size(2)] = (
        32,
        300,
        400,
        500,
        600,
        700,
        800,
        900,
        1000,
    )
    pad_to: PadTo = field(default_factory=PadTo)

    def problems(self) -> Iterator[str]:
        """Yield boundaries that do not ascend."""
        bounds = self.bucket_boundaries
        if any(low >= high for low, high in pairwise(bounds)):
            yield (
                f"data.plan.bucket_boundaries is {list(bounds)}: give numbers of frames of which "
                "each is larger than the one before"
            )

    def settled(self, began_as: str = "cost") -> "PlanConfig":
        """Return the same order with nothing left open, so that equal orders have equal settings.

        Args:
            began_as: mode of the run, for `auto`.
        """
        mode = began_as if self.mode == "auto" else self.mode
        if mode == "cost":
            return replace(self, mode="cost")
        return replace(
            self,
            mode=mode,  # type: ignore[arg-type]
            max_frames=self.max_frames or FRAMES_OF_BUDGET,
            max_utterances=self.max_utterances or UTTERANCES_OF_BUDGET,
            cost=CostConfig(),
        )
