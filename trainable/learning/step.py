"""The training step of Bert-VITS2: one global step over this worker's micro-batches, on one page.

Order, as in the reference: generator forward; multi-period, duration and WavLM discriminators; then
the generator against all three. It knows no Ray and no files, so that it can be run, timed and
tested alone.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.audio.spectrogram import mel_spectrogram, spec_to_mel
from data.config import DataConfig
from data.precision import widen
from data.stream.collate import TtsBatch
from trainable.config import TrainConfig
from trainable.distributed.collectives import all_gather_rows
from trainable.distributed.wrapping import unwrapped
from trainable.learning.gradients import grad_norm
from trainable.learning.losses import (
    discriminator_loss,
    feature_loss,
    generator_loss,
    kl_loss,
    masked_discriminator_loss,
    masked_generator_loss,
    wavlm_discriminator_loss,
    wavlm_feature_loss,
    wavlm_generator_loss,
)
from trainable.learning.not_finite import TOTALS
from trainable.learning.state import TrainState
from trainable.networks.discriminators.duration import DurationDiscriminator
from trainable.networks.discriminators.period import MultiPeriodDiscriminator
from trainable.networks.generator.synthesizer import SynthesizerOutput
from trainable.networks.layers.segments import slice_segments
from trainable.networks.layers.weight_norm import fixed_weights

# phases of a micro-batch that draw random numbers
GENERATOR, DISCRIMINATORS, ADVERSARIAL = range(3)


@dataclass
class StepReport:
    """What a global step tells.

    Attributes:
        scalars: tag -> value, means over the step's G micro-batches; 0-dimensional tensors, read
            them late.
        consumed: CRC-32 of the manifest rows of each of the G micro-batches, as the workers saw
            them: float64 [G].
        broken: which of the G micro-batches have a loss that is not finite: bool [G].
        images: of micro-batch 0's first utterance, where asked for: tag -> [rows, columns].
    """

    scalars: dict[str, Tensor]
    consumed: Tensor
    broken: Tensor
    images: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Real:
    """What a micro-batch's real segment gives, computed once a step: the segment, its mel, its WavLM features."""

    y: Tensor  # [B, 1, segment]
    mel: Tensor  # [B, n_mel_channels, segment / hop]
    slm: Tensor  # hidden states of WavLM


@dataclass
class Generated:
    """What the generator made of a micro-batch, with a graph to its weights."""

    out: SynthesizerOutput
    y_hat: Tensor  # [B, 1, segment]
    slm: Tensor  # hidden states of WavLM

    def detach(self) -> "Generated":
        """The same without the graph."""
        return Generated(
            SynthesizerOutput(*(t.detach() for t in self.out)),
            self.y_hat.detach(),
            self.slm.detach(),
        )


def seed_phase(seed: int, micro_batch: int, phase: int) -> None:
    """Every random draw of a micro-batch follows from the run's seed and its number, never from the worker."""
    torch.manual_seed(
        int(np.random.SeedSequence([seed, micro_batch, phase]).generate_state(1, np.uint64)[0])
    )


class TrainingStep:
    """One global step: discriminators over all own micro-batches, then the generator."""

    def __init__(self, state: TrainState, train: TrainConfig, data: DataConfig):
        """Bind the step to what it trains.

        Args:
            state: networks, optimizers and position, changed in place.
            train: hyper-parameters.
            data: STFT and mel parameters.
        """
        self.state, self.train, self.data = state, train, data
        self.device = next(state.nets["g"].parameters()).device
        self.corrected = train.duration_discriminator_loss == "corrected"
        dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[train.precision]
        if dtype is not None:
            state.slm.store_as(dtype)
        # the micro-batch that is worked on, for those who catch an error
        self.at: tuple[int, TtsBatch] | None = None
        self.autocast = partial(
            torch.autocast, self.device.type, dtype=dtype, enabled=dtype is not None
        )

    def __call__(
        self, micro_batches: Sequence[tuple[int, TtsBatch]], want_images: bool = False
    ) -> StepReport:
        """Train on this worker's share of a global step.

        Args:
            micro_batches: (slot, batch on the device) of each; slots count from 0 to G - 1 over all
                workers.
            want_images: return images of slot 0, where this worker has it.
        """
        nets, reduction = self.state.nets, self.state.reduction
        discriminators = {name: net for name, net in nets.items() if name != "g"}
        first = self.state.position.step * self.train.micro_batches_per_step
        losses: dict[int, dict[str, Tensor]] = {slot: {} for slot, _ in micro_batches}
        real: dict[int, Real] = {}
        self.state.prepare_step()

        # Discriminators. With one micro-batch the generator's graph is kept for its own phase; with
        # several it is built again there. Here too it is recorded, as a forward pass without a
        # graph may take other kernels.
        keep = len(micro_batches) == 1 and reduction.keeps_graph
        through = reduction.module(nets["g"]) if keep else unwrapped(nets["g"])
        for slot, batch in micro_batches:
            self.at = slot, batch
            generated = self.generate(through, batch, first + slot)
            if not keep:
                generated = generated.detach()  # one graph at a time
            real[slot] = self.real_segment(batch, generated.out.ids_slice)
            with reduction.micro_batch(discriminators, last=slot == micro_batches[-1][0]):
                seed_phase(self.train.seed, first + slot, DISCRIMINATORS)
                losses[slot] |= self.discriminator_losses(real[slot], generated)
                self.backward({name: losses[slot][TOTALS[name]] for name in discriminators})
        norms = {name: self.update(name) for name in discriminators}

        # Generator. The discriminators' weights take no gradient here.
        images: dict[str, Tensor] = {}
        weights = [p for name in discriminators for p in self.state.trainable[name]]
        for p in weights:
            p.requires_grad_(False)
        for slot, batch in micro_batches:
            self.at = slot, batch
            with reduction.micro_batch({"g": nets["g"]}, last=slot == micro_batches[-1][0]):
                if not keep:
                    generated = self.generate(reduction.module(nets["g"]), batch, first + slot)
                seed_phase(self.train.seed, first + slot, ADVERSARIAL)
                losses[slot] |= self.generator_losses(real[slot], generated)
                self.backward({"g": losses[slot][TOTALS["g"]]})
            if want_images and slot == 0:
                images = self.images(batch, real[slot], generated)
        self.at = None
        for p in weights:
            p.requires_grad_(True)
        norms["g"] = self.update("g")
        if self.state.averaged is not None:
            self.state.averaged.update(self.state.position.step + 1)
        scalars, consumed, broken = self.gather(
            losses, {slot: crc(batch.rows.numpy()) for slot, batch in micro_batches}
        )
        for name, norm in norms.items():
            scalars[f"grad_norm_{name}"] = norm
            if self.train.not_finite.policy == "skip":
                scalars[f"skipped_{name}"] = self.exploded(norm)
        return StepReport(scalars, consumed, broken, images)

    def generate(self, g: nn.Module, batch: TtsBatch, micro_batch: int) -> Generated:
        """The generator's forward pass, and WavLM's on what it made."""
        seed_phase(self.train.seed, micro_batch, GENERATOR)
        assert batch.spec is not None
        with self.autocast():
            out = g(
                batch.x,
                batch.x_lengths,
                batch.spec,
                batch.spec_lengths,
                batch.speakers,
                batch.tone,
                batch.language,
                *batch.bert_features(),
            )
            y_hat = widen(out.o)
            return Generated(out, y_hat, self.state.slm(y_hat.squeeze(1)))

    @torch.no_grad()
    def real_segment(self, batch: TtsBatch, ids_slice: Tensor) -> Real:
        """The recording's segment that the generator decoded; `ids_slice` [B] are its first frames."""
        assert batch.spec is not None
        hop, size = self.data.hop_length, self.train.segment_size
        y = slice_segments(batch.y, ids_slice * hop, size)
        mel = spec_to_mel(
            slice_segments(batch.spec, ids_slice, size // hop), **mel_parameters(self.data)
        )
        with self.autocast():
            return Real(y, mel, self.state.slm(y.squeeze(1)))

    def discriminator_losses(self, real: Real, generated: Generated) -> dict[str, Tensor]:
        """Losses of the three discriminators on a micro-batch, under the tags of the log."""
        nets = {name: self.state.reduction.module(net) for name, net in self.state.nets.items()}
        out = generated.out
        losses: dict[str, Tensor] = {}
        with self.autocast():
            y_d_r, y_d_g, _, _ = nets["d"](real.y, generated.y_hat.detach())
            losses["loss/d/total"], each_r, each_g = discriminator_loss(y_d_r, y_d_g)
            losses |= numbered("loss/d_r", each_r) | numbered("loss/d_g", each_g)
            if "dur" in nets:
                dur_r, dur_g = self.duration_scores(nets["dur"], out)
                if self.corrected:
                    loss, each_r, each_g = masked_discriminator_loss(dur_r, dur_g, out.x_mask)
                else:
                    loss, each_r, each_g = discriminator_loss(
                        dur_r[0] + dur_r[1], dur_g[0] + dur_g[1]
                    )
                losses["loss/dur_disc/total"] = loss
                losses |= numbered("loss/dur_disc_r", each_r) | numbered("loss/dur_disc_g", each_g)
            losses["loss/wd/total"] = wavlm_discriminator_loss(
                nets["wd"], real.slm, generated.slm.detach()
            )
        return losses

    def generator_losses(self, real: Real, generated: Generated) -> dict[str, Tensor]:
        """Losses of the generator on a micro-batch, weighted, under the tags of the log."""
        nets = {name: unwrapped(net) for name, net in self.state.nets.items()}
        out, w = generated.out, self.train.loss_weights
        losses: dict[str, Tensor] = {}
        d: MultiPeriodDiscriminator = nets["d"]  # type: ignore[assignment]
        with self.autocast(), fixed_weights(d, nets["wd"]):
            with torch.no_grad():
                _, fmap_r = d.discriminate(real.y)
            y_d_g, fmap_g = d.discriminate(generated.y_hat)
            adversarial, each = generator_loss(y_d_g)
            y_hat_mel = mel_spectrogram(
                generated.y_hat.squeeze(1), **mel_parameters(self.data, waveform=True)
            )
            terms = {
                "adversarial": w.adversarial * adversarial,
                "loss/g/fm": w.feature_matching * feature_loss(fmap_r, fmap_g),
                "loss/g/mel": w.mel * F.l1_loss(real.mel, y_hat_mel),
                "loss/g/dur": w.duration * widen(out.l_length).sum(),
                "loss/g/kl": w.kl * kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.y_mask),
                "loss/g/lm": w.wavlm_feature * wavlm_feature_loss(real.slm, generated.slm),
                "loss/g/lm_gen": w.wavlm_adversarial
                * wavlm_generator_loss(nets["wd"], generated.slm),
            }
            if "dur" in nets:
                dur_g = self.predicted_scores(nets["dur"], out)  # type: ignore[arg-type]
                if self.corrected:
                    adversarial, each_dur = masked_generator_loss(dur_g, out.x_mask)
                else:
                    adversarial, each_dur = generator_loss(dur_g[0] + dur_g[1])
                terms["loss/g/dur_gen"] = w.duration_adversarial * adversarial
                losses |= numbered("loss/g/dur_gen", each_dur, "_")
        losses["loss/g/total"] = torch.stack(list(terms.values())).sum()
        del terms["adversarial"]  # logged by its parts
        return losses | terms | numbered("loss/g", each)

    def duration_scores(
        self, dur: nn.Module, out: SynthesizerOutput
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Scores of real and predicted durations, [B, T, 1] each, beside either predictor; both in one batch.

        For the discriminator's own loss: nothing flows back into the generator.
        """
        hidden, mask, logw_, g = (
            torch.cat([t.detach()] * 2) for t in (out.hidden_x, out.x_mask, out.logw_, out.g)
        )
        real, fake = dur(hidden, mask, logw_, torch.cat([out.logw, out.logw_sdp]).detach(), g)
        return real.chunk(2), fake.chunk(2)

    def predicted_scores(
        self, dur: DurationDiscriminator, out: SynthesizerOutput
    ) -> Sequence[Tensor]:
        """Scores of both predictors' durations alone, [B, T, 1] each, with a graph."""
        hidden, mask, g = (torch.cat([t] * 2) for t in (out.hidden_x, out.x_mask, out.g))
        return dur.judge(hidden, mask, torch.cat([out.logw, out.logw_sdp]), g).chunk(2)

    def backward(self, totals: Mapping[str, Tensor]) -> None:
        """Backward passes of independent losses, one a network, in one walk of the graph."""
        scale = self.state.reduction.loss_scale
        torch.autograd.backward(
            [self.state.scalers[name].scale(total * scale) for name, total in totals.items()]
        )

    def update(self, name: str) -> Tensor:
        """Reduce and clip the gradients of a network, step its optimizer; returns the norm before clipping."""
        optimizer, scaler = self.state.optimizers[name], self.state.scalers[name]
        self.state.reduction.finish(name)
        scaler.unscale_(optimizer)
        norm = grad_norm(self.state.trainable[name])
        limit = self.train.clip_norm.limit(name, self.train.precision)
        if limit is not None:
            # the fused kernel divides by it, without another pass over the gradients
            # (a number of fp32, whatever the parameters' type)
            scale = (norm / limit).clamp(min=1.0).float()
            optimizer.grad_scale = scale  # type: ignore[attr-defined]
        # with `roll_back` the steps until a bad one is seen are forgotten, but should not have to
        # compute with NaN
        if self.train.not_finite.policy != "stop" and not scaler.is_enabled():
            optimizer.found_inf = self.exploded(norm)  # type: ignore[attr-defined]  # the fused kernel looks at it
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def exploded(self, norm: Tensor) -> Tensor:
        """Whether a gradient norm is not finite or too large: 1 or 0, fp32 [], on its device."""
        limit = self.train.not_finite.max_grad_norm
        return (~(norm <= (torch.finfo(torch.float32).max if limit is None else limit))).float()

    def gather(self, losses: Mapping[int, Mapping[str, Tensor]], crcs: Mapping[int, int]) -> tuple:
        """Of the step's G micro-batches, equal on every worker: means of the losses, consumed, broken (StepReport)."""
        tags = self.state.loss_tags()
        # a copy from the host would wait
        constant = partial(torch.full, (), dtype=torch.float64, device=self.device)
        nan = constant(float("nan"))  # a loss an utterance, of a smaller micro-batch
        own = {
            slot: torch.stack(
                [constant(crcs[slot])] + [parts.get(tag, nan).detach().double() for tag in tags]
            )
            for slot, parts in losses.items()
        }
        table = all_gather_rows(own, self.train.micro_batches_per_step, 1 + len(tags), self.device)
        totals = [table[:, 1 + tags.index(tag)] for tag in TOTALS.values() if tag in tags]
        broken = ~torch.stack(totals).isfinite().all(0)
        return dict(zip(tags, table[:, 1:].mean(0), strict=True)), table[:, 0], broken

    @torch.no_grad()
    def images(self, batch: TtsBatch, real: Real, generated: Generated) -> dict[str, Tensor]:
        """The seed's training images: mels [n_mel_channels, frames] and the alignment [frames, phones]."""
        assert batch.spec is not None
        frames, phones = batch.spec_lengths[0], batch.x_lengths[0]
        return {
            "slice/mel_org": real.mel[0],
            "slice/mel_gen": mel_spectrogram(
                generated.y_hat[:1].squeeze(1), **mel_parameters(self.data, waveform=True)
            )[0],
            "all/mel": spec_to_mel(batch.spec[:1, :, :frames], **mel_parameters(self.data))[0],
            "all/attn": generated.out.attn[0, 0, :frames, :phones],
        }


def crc(rows: np.ndarray) -> int:
    """CRC-32 of the manifest rows of a micro-batch, int64 [B], in order."""
    return zlib.crc32(rows.astype("<i8").tobytes())


def numbered(prefix: str, values: Iterable[Tensor], separator: str = "/") -> dict[str, Tensor]:
    """`prefix/0`, `prefix/1`, ...: the seed's tags for a list of losses."""
    return {f"{prefix}{separator}{i}": value for i, value in enumerate(values)}


def mel_parameters(data: DataConfig, waveform: bool = False) -> dict:
    """Keyword arguments of spec_to_mel; with `waveform` those of mel_spectrogram."""
    mel = {
        "n_fft": data.filter_length,
        "num_mels": data.n_mel_channels,
        "sampling_rate": data.sampling_rate,
        "fmin": data.mel_fmin,
        "fmax": data.mel_fmax,
    }
    return mel | {"hop_size": data.hop_length, "win_size": data.win_length} if waveform else mel
