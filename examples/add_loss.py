"""Add a loss to the generator's sum: `python -m examples.add_loss`.

A loss is a function and its declaration. Nothing else has to be touched: the loss joins the sum
with a weight of its own, stands in every step's report under its tag, and so in metrics.jsonl and
TensorBoard; if it becomes NaN, the run stops and names it.

To keep a loss, put its function into trainable/learning/terms.py and its declaration into
trainable/networks/registry.py. It then has a key in the configuration too
(`--train.loss_weights.loudness 0.5`), and can be searched by tuning/.
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from data.plan.epoch_plan import Position
from data.precision import widen
from job.settings.cli import read_config
from trainable.hardware import set_up_torch
from trainable.learning.rehearsal import made_up
from trainable.learning.report import StepReport
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.learning.terms import Generated, Networks, Real
from trainable.networks.registry import Term, registered
from trainable.weights.slm import load_slm

DEMO = Path(__file__).parents[1] / "job/presets/demo.yaml"
FRAME = 512  # samples


def loudness(real: Real, generated: Generated, nets: Networks) -> Tensor:
    """Return the mean distance of the frames' levels, [] in dB.

    Every term is called like this. `real` holds what the recording gave, `generated` what the
    generator made of the same utterances, with a graph; `nets` are the networks by name, for terms
    that need one.
    """
    return F.l1_loss(level(real.y), level(generated.y_hat))


def level(y: Tensor) -> Tensor:
    """Return the level of each frame: [B, 1, S] -> [B, 1, S / FRAME] in dB."""
    # at least in fp32, as all losses are, under autocast too
    power = F.avg_pool1d(widen(y).square(), FRAME)
    return 10 * torch.log10(power + 1e-7)


LOUDNESS = Term(
    "loudness",  # key of train.loss_weights
    "distance of the frames' levels in dB",
    weight=0.1,
    tag="loss/g/loudness",
    function=loudness,
)


def train(steps: int) -> list[StepReport]:
    """Train the demo preset's networks on noise, without Ray and without files."""
    cfg = read_config(DEMO)
    cfg = replace(cfg, train=replace(cfg.train, micro_batches_per_step=1, segment_size=4096))
    set_up_torch(cfg.train, threads=1, device=torch.device("cpu"))
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate)
    nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
    state = TrainState(nets, slm, cfg.model, cfg.train)
    step = TrainingStep(state, cfg.train, cfg.data)
    # 2 utterances of 48 frames and 21 phones
    batch = made_up((2, 48, 21), cfg.model.bert_channels, cfg.data, step.device)

    reports = []
    for number in range(steps):
        # a global step is one micro-batch here: slot 0
        reports.append(step([(0, batch)]))
        state.position = Position(number + 1, 0, number + 1)
    return reports


def main() -> None:
    """Train three steps with the loss."""
    # For as long as the block lasts. `register(LOUDNESS)` is for good, in this process; both must
    # come before the networks are built.
    with registered(LOUDNESS):
        for number, report in enumerate(train(3), 1):
            own, total = (report.scalars[f"loss/g/{name}"].item() for name in ("loudness", "total"))
            print(f"step {number}: loudness {own:.3f} (weighted) of a sum of {total:.2f}")


if __name__ == "__main__":
    main()
