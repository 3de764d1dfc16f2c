"""The training step of Bert-VITS2: one global step over this worker's micro-batches, on one page.

Order, as in the reference trainer: generator forward; the discriminators; then the generator
against all of them. The step knows no Ray and no files, so that it can be run, timed and tested
alone. It knows no discriminator and no loss by name: trainable/networks/registry.py declares them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.audio.spectrogram import mel_spectrogram, spec_to_mel
from data.config import DataConfig
from data.precision import widen
from data.stream.collate import TtsBatch
from trainable.config import TrainConfig
from trainable.distributed.collectives import collective
from trainable.distributed.wrapping import same_buffers, unwrapped
from trainable.learning.adversaries import Adversary
from trainable.learning.optimizer import grad_norm
from trainable.learning.report import StepReport, Told, crc, gather_report
from trainable.learning.state import AUTOCAST_TYPES, TrainState
from trainable.learning.terms import Generated, Loss, Real, checked
from trainable.networks.layers.segments import slice_segments
from trainable.networks.layers.weight_norm import fixed_weights
from trainable.networks.registry import (
    GENERATOR,
    Blueprint,
    imported,
    loss_tags,
    network,
    terms,
)

# phases of a micro-batch that draw random numbers
GENERATION, DISCRIMINATORS, ADVERSARIAL = range(3)


@dataclass
class StepBatch:
    """A micro-batch of this worker on its way through the step.

    Attributes:
        slot: its number within the step, over all workers.
        number: its number within the run, which its random draws follow from.
        batch: the utterances, on the device.
        real: what the recordings gave.
        generated: what the generator made, where its graph is kept for the generator's phase.
        losses: tag -> value [].
        images: tag -> image, where asked for.
    """

    slot: int
    number: int
    batch: TtsBatch
    real: Real | None = None
    generated: Generated | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    images: dict[str, Tensor] = field(default_factory=dict)


def seed_phase(seed: int, micro_batch: int, phase: int) -> None:
    """Seed torch, so that every draw follows from the run's seed, the micro-batch and its phase.

    Never from the worker that computes it.
    """
    entropy = np.random.SeedSequence([seed, micro_batch, phase]).generate_state(1, np.uint64)
    torch.manual_seed(int(entropy[0]))


class TrainingStep:
    """One global step: discriminators over all own micro-batches, then the generator."""

    def __init__(self, state: TrainState, train: TrainConfig, data: DataConfig):
        """Bind the step to what it trains.

        Args:
            state: networks, optimizers and position, changed in place.
            train: hyper-parameters.
            data: STFT and mel parameters.
        """
        self.state = state
        self.train = train
        self.data = data

        # A pass that computes a network's own gradients goes through `trained`: DDP's wrapper, if
        # the reduction leaves the sum to DDP. A pass that computes another network's gradients, or
        # none, goes through `bare`, the network itself: the wrapper would wait for gradients.
        self.trained = {name: state.reduction.module(net) for name, net in state.nets.items()}
        self.bare = {name: unwrapped(net) for name, net in state.nets.items()}
        self.discriminators = [name for name in state.nets if name != GENERATOR]

        blueprint = Blueprint(state.model, train, data, state.slm)
        self.adversaries: dict[str, Adversary] = {
            name: imported(adversary)(blueprint)
            for name in self.discriminators
            if (adversary := network(name).adversary) is not None
        }
        self.terms = terms(state.nets)
        self.functions = {
            term.name: imported(term.function) for term in self.terms if term.function is not None
        }
        self.totals = {name: network(name).total for name in state.nets}
        self.tags = loss_tags(state.nets)

        self.device = next(self.bare[GENERATOR].parameters()).device
        dtype = AUTOCAST_TYPES[train.precision]
        self.autocast = partial(
            torch.autocast, self.device.type, dtype=dtype, enabled=dtype is not None
        )
        # the micro-batch that is worked on, for those who catch an error
        self.at: tuple[int, TtsBatch] | None = None

    @collective
    def __call__(
        self, micro_batches: Sequence[tuple[int, TtsBatch]], want_images: bool = False
    ) -> StepReport:
        """Train on this worker's share of a global step.

        Args:
            micro_batches: (slot, batch on the device) of each; slots count from 0 to G - 1 over all
                workers.
            want_images: return images of slot 0, where this worker has it.
        """
        self.state.prepare_step()
        first = self.state.position.step * self.train.micro_batches_per_step
        share = [StepBatch(slot, first + slot, batch) for slot, batch in micro_batches]

        norms = self.train_discriminators(share) if self.adversarial else self.not_trained()
        norms |= self.train_generator(share, want_images)
        if self.state.model.use_spectral_norm:
            for name in self.discriminators:
                same_buffers(self.bare[name])
        if self.state.averaged is not None:
            self.state.averaged.update(self.state.position.step + 1)

        report = self.gathered_report(share)
        report.images = {tag: image for own in share for tag, image in own.images.items()}
        for name, norm in norms.items():
            report.scalars[f"grad_norm_{name}"] = norm
            if self.train.not_finite.policy == "skip":
                report.scalars[f"skipped_{name}"] = self.exploded(norm)
        return report

    @property
    def adversarial(self) -> bool:
        """Whether the discriminators take part in the next step."""
        return self.state.position.step >= self.train.adversarial_from_step

    def not_trained(self) -> dict[str, Tensor]:
        """Return the gradient norms of discriminators that take no part: 0."""
        return {name: torch.zeros((), device=self.device) for name in self.discriminators}

    def train_discriminators(self, share: Sequence[StepBatch]) -> dict[str, Tensor]:
        """Train the discriminators; return their gradient norms, by network."""
        reduction = self.state.reduction
        nets = {name: self.state.nets[name] for name in self.discriminators}

        # With one micro-batch the generator's graph is kept for its own phase; with several it is
        # built again there. Here too it is recorded, as a forward pass without a graph may take
        # other kernels.
        keep = len(share) == 1 and reduction.keeps_graph
        through = self.trained if keep else self.bare
        for own in share:
            self.at = own.slot, own.batch
            generated = self.generate(through[GENERATOR], own.batch, own.number)
            if keep:
                own.generated = generated
            else:
                generated = generated.detach()  # one graph at a time
            own.real = self.real_segment(own.batch, generated.out.ids_slice)
            with reduction.micro_batch(nets, last=own is share[-1]):
                seed_phase(self.train.seed, own.number, DISCRIMINATORS)
                own.losses |= self.discriminator_losses(own.real, generated)
                # each network's loss reaches its own weights alone: one walk serves all
                self.backward({name: own.losses[self.totals[name]] for name in nets})
        return {name: self.update(name) for name in nets}

    def train_generator(self, share: Sequence[StepBatch], want_images: bool) -> dict[str, Tensor]:
        """Train the generator against the discriminators; return its gradient norm."""
        reduction = self.state.reduction
        nets = {GENERATOR: self.state.nets[GENERATOR]}

        # gradients flow through the discriminators to the generator, but not to their weights
        frozen = [weight for name in self.discriminators for weight in self.state.trainable[name]]
        for weight in frozen:
            weight.requires_grad_(False)
        for own in share:
            self.at = own.slot, own.batch
            with reduction.micro_batch(nets, last=own is share[-1]):
                generated = own.generated
                if generated is None:
                    generated = self.generate(self.trained[GENERATOR], own.batch, own.number)
                if own.real is None:
                    own.real = self.real_segment(own.batch, generated.out.ids_slice)
                seed_phase(self.train.seed, own.number, ADVERSARIAL)
                own.losses |= self.generator_losses(own.real, generated)
                self.backward({GENERATOR: own.losses[self.totals[GENERATOR]]})
            if want_images and own.slot == 0:
                own.images = self.images(own.batch, own.real, generated)
        self.at = None
        for weight in frozen:
            weight.requires_grad_(True)
        return {GENERATOR: self.update(GENERATOR)}

    def generate(self, g: nn.Module, batch: TtsBatch, micro_batch: int) -> Generated:
        """Run the generator forward, and WavLM on what it made."""
        seed_phase(self.train.seed, micro_batch, GENERATION)
        assert batch.spec is not None
        with self.autocast():
            extent = batch.extent
            out = g(batch.text_inputs(), batch.spec, batch.spec_lengths, extent.frames)
            y_hat = widen(out.o)
            slm = self.state.slm(y_hat.squeeze(1))
            return Generated(out, y_hat, slm, self.log_mel, extent.tokens)

    @torch.no_grad()
    def real_segment(self, batch: TtsBatch, ids_slice: Tensor) -> Real:
        """Return the recording's segment that the generator decoded.

        Args:
            batch: the micro-batch.
            ids_slice: int64 [B], first frame of the segment in each utterance.
        """
        assert batch.spec is not None
        hop = self.data.hop_length
        size = self.train.segment_size
        y = slice_segments(batch.y, ids_slice * hop, size)
        spec = slice_segments(batch.spec, ids_slice, size // hop)
        mel = spec_to_mel(spec, **mel_parameters(self.data))
        with self.autocast():
            return Real(y, mel, self.state.slm(y.squeeze(1)))

    def log_mel(self, wave: Tensor) -> Tensor:
        """Return the log mel spectrogram of a waveform: [B, S] -> [B, n_mel_channels, S / hop]."""
        return mel_spectrogram(wave, **mel_parameters(self.data, waveform=True))

    def discriminator_losses(self, real: Real, generated: Generated) -> dict[str, Tensor]:
        """Return the discriminators' losses on a micro-batch, by tag."""
        losses: dict[str, Tensor] = {}
        heard = generated.detach()
        with self.autocast():
            for name, adversary in self.adversaries.items():
                declared = network(name)
                found = adversary.loss(self.trained[name], real, heard)
                loss = checked(found, f"the adversary of {name}", declared.parts)
                losses |= {declared.total: loss.total, **loss.parts}
        return losses

    def generator_losses(self, real: Real, generated: Generated) -> dict[str, Tensor]:
        """Return the generator's losses on a micro-batch, terms weighted and parts not, by tag."""
        losses: dict[str, Tensor] = {}
        weighted: list[Tensor] = []
        step = self.state.position.step
        heard = self.adversaries if self.adversarial else {}
        with self.autocast(), fixed_weights(*(self.bare[name] for name in heard)):
            found = self.term_values(heard, real, generated)
            for term in (term for term in self.terms if term.name in found):
                loss = checked(found[term.name], f"the term {term.name}", term.parts)
                weight = self.train.loss_weights.of(term) * self.train.loss_ramp.of(term, step)
                value = weight * loss.total
                weighted.append(value)
                losses |= loss.parts if term.tag is None else {term.tag: value, **loss.parts}
            # in the order of the declarations, which decides the last bits of the sum
            losses[network(GENERATOR).total] = torch.stack(weighted).sum()
        return losses

    def term_values(
        self, heard: Mapping[str, Adversary], real: Real, generated: Generated
    ) -> dict[str, Loss | Tensor]:
        """Return the terms of the generator's sum, unweighted, by name.

        Args:
            heard: the discriminators that it learns from.
            real: what the recordings gave.
            generated: what it made.
        """
        found: dict[str, Loss | Tensor] = {}
        for name, adversary in heard.items():
            own = adversary.terms(self.bare[name], real, generated)
            declared = [term.name for term in network(name).terms]
            assert sorted(own) == sorted(declared), (
                f"the adversary of {name} returned the terms {', '.join(own) or 'none'}; "
                f"its declaration lists {', '.join(declared)}"
            )
            found |= own
        for name, function in self.functions.items():
            found[name] = function(real, generated, self.bare)
        return found

    def backward(self, totals: Mapping[str, Tensor]) -> None:
        """Run the backward passes of networks' independent losses, in one walk of the graph."""
        scale = self.state.reduction.loss_scale
        torch.autograd.backward(
            [self.state.scalers[name].scale(total * scale) for name, total in totals.items()]
        )

    def update(self, name: str) -> Tensor:
        """Reduce and clip the gradients of a network, and step its optimizer.

        Returns:
            The norm before clipping, [].
        """
        optimizer: Any = self.state.optimizers[name]
        scaler = self.state.scalers[name]
        self.state.reduction.finish(name)
        scaler.unscale_(optimizer)
        norm = grad_norm(self.state.trainable[name])

        # The fused kernel divides by `grad_scale`, without another pass over the gradients, and
        # leaves the weights alone where `found_inf` is 1.
        limit = self.train.clip_norm.limit(name, self.train.precision)
        if limit is not None:
            # of fp32, whatever the parameters' type
            optimizer.grad_scale = (norm / limit).clamp(min=1.0).float()
        # with `roll_back` the steps until a bad one is seen are forgotten, but should not have to
        # compute with NaN
        if self.train.not_finite.policy != "stop" and not scaler.is_enabled():
            optimizer.found_inf = self.exploded(norm)

        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def exploded(self, norm: Tensor) -> Tensor:
        """Return 1 if a gradient norm is not finite or too large, else 0; fp32 []."""
        limit = self.train.not_finite.max_grad_norm
        largest = torch.finfo(torch.float32).max if limit is None else limit
        return (~(norm <= largest)).float()

    @collective
    def gathered_report(self, share: Sequence[StepBatch]) -> StepReport:
        """Return the report of all G micro-batches, equal on every worker."""
        told = {own.slot: Told(crc(own.batch.rows.numpy()), own.losses) for own in share}
        G = self.train.micro_batches_per_step
        return gather_report(told, self.tags, list(self.totals.values()), G, self.device)

    @torch.no_grad()
    def images(self, batch: TtsBatch, real: Real, generated: Generated) -> dict[str, Tensor]:
        """Return the training images of the first utterance.

        Mels are [n_mel_channels, frames], the alignment is [frames, phones].
        """
        assert batch.spec is not None
        frames = batch.spec_lengths[0]
        phones = batch.x_lengths[0]
        whole = spec_to_mel(batch.spec[:1, :, :frames], **mel_parameters(self.data))
        return {
            "slice/mel_org": real.mel[0],
            "slice/mel_gen": self.log_mel(generated.y_hat[:1].squeeze(1))[0],
            "all/mel": whole[0],
            "all/attn": generated.out.attn[0, 0, :frames, :phones],
        }


def mel_parameters(data: DataConfig, waveform: bool = False) -> dict:
    """Return keyword arguments of spec_to_mel; with `waveform` those of mel_spectrogram."""
    mel = {
        "n_fft": data.filter_length,
        "num_mels": data.n_mel_channels,
        "sampling_rate": data.sampling_rate,
        "fmin": data.mel_fmin,
        "fmax": data.mel_fmax,
    }
    if not waveform:
        return mel
    return mel | {"hop_size": data.hop_length, "win_size": data.win_length}
