"""The training step with the work that the reference trainer does for nothing, to be timed beside ours.

What it repeats is known from measurements of that trainer: five forward passes of WavLM and two
backward ones, a graph of the real branch and weight gradients of the discriminators in the
generator's phase, a norm a parameter read by the host, alignment on the host, random numbers drawn
there and moved, checks and boolean indices in the splines, range checks in the mels. The losses are
the same. Nothing here is used in training.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from data.audio.spectrogram import mel_spectrogram
from data.stream.collate import TtsBatch
from trainable.learning.losses import wavlm_generator_loss
from trainable.learning.step import Generated, Real, StepReport, TrainingStep
from trainable.networks.generator.alignment import maximum_path
from trainable.networks.generator.splines import rational_quadratic_spline


class AsReferenceStep(TrainingStep):
    """`TrainingStep` with the reference's redundant work; one micro-batch a step, as there."""

    def __call__(
        self, micro_batches: Sequence[tuple[int, TtsBatch]], want_images: bool = False
    ) -> StepReport:
        """See `TrainingStep`."""
        assert len(micro_batches) == 1
        for optimizer in self.state.optimizers.values():
            # the generator's phase left gradients in the discriminators
            optimizer.zero_grad(set_to_none=True)
        with redundant_work(), drawn_on_the_host():
            return super().__call__(micro_batches, want_images)

    def generate(self, g: nn.Module, batch: TtsBatch, micro_batch: int) -> Generated:
        """WavLM hears what is generated without a graph here: the discriminators' share of its five passes."""
        slm = self.state.slm

        def without_graph(wav: Tensor) -> Tensor:
            with torch.no_grad():
                return slm(wav)

        with patch.object(self.state, "slm", without_graph):
            return super().generate(g, batch, micro_batch)

    def generator_losses(self, real: Real, generated: Generated) -> dict[str, Tensor]:
        """Three more passes of WavLM; the discriminators' weights take gradients, and the real branch has a graph."""
        nets, slm = self.state.nets, self.state.slm
        d: Any = nets["d"]
        for p in (p for name in nets if name != "g" for p in self.state.trainable[name]):
            p.requires_grad_(True)
        with self.autocast():
            with torch.no_grad():
                real = replace(real, slm=slm(real.y.squeeze(1)))
            generated = replace(generated, slm=slm(generated.y_hat.squeeze(1)))

        def heard_again(wd: nn.Module, hidden: Tensor) -> Tensor:
            return wavlm_generator_loss(wd, slm(generated.y_hat.squeeze(1)))

        with (
            patch("trainable.learning.step.wavlm_generator_loss", heard_again),
            # they take gradients
            patch("trainable.learning.step.fixed_weights", lambda *_: nullcontext()),
            patch.object(d, "discriminate", torch.enable_grad()(d.discriminate)),
        ):
            return super().generator_losses(real, generated)


@contextmanager
def redundant_work() -> Iterator[None]:
    """Norms, alignment, splines and mels as the reference has them."""
    with (
        patch("trainable.learning.step.grad_norm", norms_one_by_one),
        patch("trainable.networks.generator.synthesizer.maximum_path", aligned_on_the_host),
        patch("trainable.networks.generator.duration.rational_quadratic_spline", checked_spline),
        patch("trainable.learning.step.mel_spectrogram", checked_mel),
    ):
        yield


@contextmanager
def drawn_on_the_host() -> Iterator[None]:
    """Random numbers of `torch.rand`, `randn` and `randn_like` are drawn on the CPU and moved."""
    randn = torch.randn

    def moved(
        draw: Callable, *size: Any, device: torch.device | None = None, **kwargs: Any
    ) -> Tensor:
        return draw(*size, **kwargs).to(device or "cpu")

    def like(x: Tensor) -> Tensor:
        return randn(x.shape, dtype=x.dtype).to(x.device)

    with (
        patch("torch.rand", partial(moved, torch.rand)),
        patch("torch.randn", partial(moved, randn)),
        patch("torch.randn_like", like),
    ):
        yield


def norms_one_by_one(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients, [], from one number a parameter that the host waits for."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [g.norm(2).item() ** 2 for g in gradients]
    return torch.tensor(sum(squares) ** 0.5, device=gradients[0].device)


def aligned_on_the_host(neg_cent: Tensor, mask: Tensor) -> Tensor:
    """`maximum_path` of scores and mask [B, T_y, T_x] that are copied to the host; the path is copied back."""
    return maximum_path(neg_cent.cpu(), mask.cpu()).to(neg_cent.device)


def checked_spline(
    inputs: Tensor, *shape: Tensor, inverse: bool, tail_bound: float
) -> tuple[Tensor, Tensor]:
    """`rational_quadratic_spline` of the inputs [...] inside the bounds only, which are found and checked first."""
    inside = (inputs >= -tail_bound) & (inputs <= tail_bound)
    inputs = inputs.float()
    outputs, log_derivative = inputs.clone(), torch.zeros_like(inputs)
    if inside.any():
        picked = inputs[inside]
        if picked.min() < -tail_bound or picked.max() > tail_bound:
            raise ValueError("an input lies outside the spline")
        values = rational_quadratic_spline(
            picked, *(part[inside] for part in shape), inverse=inverse, tail_bound=tail_bound
        )
        outputs[inside], log_derivative[inside] = values
    return outputs, log_derivative


def checked_mel(y: Tensor, **kwargs: Any) -> Tensor:
    """`mel_spectrogram` [B, n_mel_channels, frames] of a waveform [B, T] whose range is looked at first."""
    if y.min() < -1.0 or y.max() > 1.0:
        print("a waveform leaves [-1, 1]")
    return mel_spectrogram(y, **kwargs)
