"""Add a discriminator: `python -m examples.add_discriminator`.

A discriminator is a network, an adversary that says what the network hears and what it adds to the
generator's sum, and a declaration of both. Nothing else has to be touched: the network is built,
wrapped for DDP, optimised, clipped, saved, restored, exported and logged like the others.

To keep one, put the network and its adversary into a file of trainable/networks/discriminators/,
and the declaration into trainable/networks/registry.py. It then has keys in the configuration too
(`--train.learning_rates.env 1e-4`, `--train.clip_norm.env 100`,
`--train.loss_weights.envelope_adversarial 0.5`).
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.plan.epoch_plan import Position
from job.settings.cli import read_config
from job.settings.config import Config
from trainable.hardware import set_up_torch
from trainable.learning.losses import discriminator_loss, generator_loss
from trainable.learning.rehearsal import made_up
from trainable.learning.report import StepReport
from trainable.learning.state import TrainState, build_networks
from trainable.learning.step import TrainingStep
from trainable.learning.terms import Generated, Loss, Real
from trainable.networks.registry import Blueprint, Network, Term, registered
from trainable.run.checkpoint import load_checkpoint, save_checkpoint
from trainable.run.format import CheckpointInfo
from trainable.weights.slm import load_slm

DEMO = Path(__file__).parents[1] / "job/presets/demo.yaml"


class EnvelopeDiscriminator(nn.Module):
    """Convolutions over the envelope of a waveform.

    Args:
        channels: width.
        frame: samples per value of the envelope.
    """

    def __init__(self, channels: int, frame: int):
        super().__init__()
        self.frame = frame
        self.layers = nn.Sequential(
            nn.Conv1d(1, channels, 5, padding=2),
            nn.LeakyReLU(0.1),
            nn.Conv1d(channels, 1, 3, padding=1),
        )

    def forward(self, y: Tensor) -> Tensor:
        """[B, 1, S] waveform -> logits [B, 1, S / frame]."""
        return self.layers(F.avg_pool1d(y.abs(), self.frame))


def build(blueprint: Blueprint) -> EnvelopeDiscriminator:
    """Build the network, from whatever part of the configuration it needs."""
    return EnvelopeDiscriminator(channels=16, frame=blueprint.data.hop_length // 4)


class EnvelopeAdversary:
    """What the discriminator hears, its loss, and its term; see `Adversary` for the contract."""

    def __init__(self, blueprint: Blueprint):
        """Take what it needs from the configuration: nothing."""

    def loss(self, net: nn.Module, real: Real, generated: Generated) -> Loss:
        """Return its own loss, and its parts under the tags that the declaration lists."""
        # one call, so that DDP sees one forward pass
        scores = net(torch.cat([real.y, generated.y_hat]))
        real_scores, fake_scores = scores.chunk(2)
        total, each_real, each_fake = discriminator_loss([real_scores], [fake_scores])
        return Loss(total, {"loss/env/real": each_real[0], "loss/env/generated": each_fake[0]})

    def terms(self, net: nn.Module, real: Real, generated: Generated) -> dict[str, Loss | Tensor]:
        """Return what the generator is trained with: a value for each declared term."""
        total, _ = generator_loss([net(generated.y_hat)])
        return {"envelope_adversarial": total}


ENVELOPE = Network(
    "env",  # key of train.learning_rates and train.clip_norm, and stem of its file
    "the discriminator of envelopes",
    build=build,
    prefix="ENV",  # of its published files
    total="loss/env/total",
    parts=("loss/env/real", "loss/env/generated"),
    adversary=EnvelopeAdversary,
    terms=(
        Term(
            "envelope_adversarial",  # key of train.loss_weights
            "GAN loss of the discriminator of envelopes",
            tag="loss/g/env_gen",
        ),
    ),
)


def new_state(cfg: Config) -> TrainState:
    """Build all networks, with initial weights."""
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate)
    nets = build_networks(cfg.model, cfg.train, cfg.data, slm)
    return TrainState(nets, slm, cfg.model, cfg.train)


def train_step(cfg: Config, state: TrainState) -> StepReport:
    """Train one global step, a micro-batch of noise: 2 utterances of 48 frames and 21 phones."""
    step = TrainingStep(state, cfg.train, cfg.data)
    batch = made_up((2, 48, 21), cfg.model.bert_channels, cfg.data, step.device)
    report = step([(0, batch)])
    done = state.position.step + 1
    state.position = Position(done, 0, done)
    return report


def main() -> None:
    """Train two steps, save, restore, and train a third."""
    cfg = read_config(DEMO)
    cfg = replace(cfg, train=replace(cfg.train, micro_batches_per_step=1, segment_size=4096))
    set_up_torch(cfg.train, threads=1, device=torch.device("cpu"))
    # For as long as the block lasts. `register(ENVELOPE)` is for good, in this process; both must
    # come before the networks are built.
    with registered(ENVELOPE), tempfile.TemporaryDirectory() as folder:
        state = new_state(cfg)
        for number in (1, 2):
            scalars = train_step(cfg, state).scalars
            own, term, norm = (
                scalars[tag].item() for tag in ("loss/env/total", "loss/g/env_gen", "grad_norm_env")
            )
            print(f"step {number}: its loss {own:.3f}, the generator's {term:.3f}, norm {norm:.3f}")

        info = CheckpointInfo(state.position, "no manifest", "example", {}, {"Ann": 0}, 1)
        save_checkpoint(Path(folder), state, info, "")
        print("saved", ", ".join(sorted(path.name for path in Path(folder).glob("*.safetensors"))))

        again = new_state(cfg)
        load_checkpoint(Path(folder), again)
        assert again.digest() == state.digest()
        train_step(cfg, again)
        print(f"restored, and trained to step {again.position.step}")


if __name__ == "__main__":
    main()
