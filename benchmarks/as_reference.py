"""The training step with the reference trainer's redundant work, to be timed beside ours.

What it repeats is known from measurements of that trainer: five forward passes of WavLM and two
backward ones, a graph of the real branch and weight gradients of the discriminators in the
generator's phase, one norm per parameter read by the host, alignment on the host, random numbers
drawn there and moved, checks and boolean indices in the splines, range checks in the mels. The
losses are the same. Nothing here is used in training.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.audio.spectrogram import mel_spectrogram
from data.stream.collate import TtsBatch
from trainable.compiling import not_compiled
from trainable.learning.losses import wavlm_generator_loss
from trainable.learning.report import StepReport
from trainable.learning.step import TrainingStep
from trainable.learning.terms import Generated, Real
from trainable.networks.generator.alignment import maximum_path
from trainable.networks.kernels.spline import rows_of, spline_in_torch
from trainable.networks.wavlm import GatedAttention


class AsReferenceStep(TrainingStep):
    """`TrainingStep` with the reference's redundant work; one micro-batch per step, as there.

    Nothing of it is compiled.
    """

    def __call__(
        self, micro_batches: Sequence[tuple[int, TtsBatch]], want_images: bool = False
    ) -> StepReport:
        """Do a global step; see `TrainingStep`."""
        assert len(micro_batches) == 1
        for optimizer in self.state.optimizers.values():
            # the generator's phase left gradients in the discriminators
            optimizer.zero_grad(set_to_none=True)
        with not_compiled(self.train), redundant_work(), drawn_on_the_host():
            return super().__call__(micro_batches, want_images)

    def generate(self, g: nn.Module, batch: TtsBatch, micro_batch: int) -> Generated:
        """Generate, with a pass of WavLM without a graph: the discriminators' share of its five."""
        slm = self.state.slm

        def without_graph(wav: Tensor) -> Tensor:
            with torch.no_grad():
                return slm(wav)

        with patch.object(self.state, "slm", without_graph):
            return super().generate(g, batch, micro_batch)

    def generator_losses(self, real: Real, generated: Generated) -> dict[str, Tensor]:
        """Return the generator's losses, with three more passes of WavLM.

        The discriminators' weights take gradients, and the real branch has a graph.
        """
        nets = self.state.nets
        slm = self.state.slm
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
            patch("trainable.learning.adversaries.wavlm_generator_loss", heard_again),
            # so that the discriminators' weights take gradients
            patch("trainable.learning.step.fixed_weights", lambda *_: nullcontext()),
            patch.object(d, "discriminate", torch.enable_grad()(d.discriminate)),
        ):
            return super().generator_losses(real, generated)


@contextmanager
def redundant_work() -> Iterator[None]:
    """Compute norms, alignment, splines and mels as the reference does, until the block ends."""
    with (
        patch("trainable.learning.step.grad_norm", norms_one_by_one),
        patch("trainable.networks.generator.alignment.maximum_path", aligned_on_the_host),
        patch("trainable.networks.generator.duration.spline", checked_spline),
        patch("trainable.networks.generator.duration.norm_gelu", norm_then_gelu),
        patch(
            "trainable.networks.discriminators.duration.read_both_ways",
            lambda lstm, x: lstm(x)[0],
        ),
        patch("trainable.learning.step.mel_spectrogram", checked_mel),
        patch("trainable.networks.kernels.support.joined", lambda x: False),
        patch("trainable.networks.kernels.support.on_gpu", lambda x: False),
        patch("trainable.networks.wavlm.GatedAttention.forward", attended_as_transformers),
    ):
        yield


@contextmanager
def drawn_on_the_host() -> Iterator[None]:
    """Draw numbers of `torch.rand`, `randn` and `randn_like` on the CPU, until the block ends."""
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
    """Return the norm of all gradients, [], from one number per parameter read by the host."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [g.norm(2).item() ** 2 for g in gradients]
    return torch.tensor(sum(squares) ** 0.5, device=gradients[0].device)


def aligned_on_the_host(neg_cent: Tensor, mask: Tensor) -> Tensor:
    """Return `maximum_path` of scores and mask [B, T_y, T_x], computed on the host."""
    return maximum_path(neg_cent.cpu(), mask.cpu()).to(neg_cent.device)


def checked_spline(
    x: Tensor,
    shape: Tensor,
    mask: Tensor,
    log_det: Tensor | None = None,
    *,
    inverse: bool,
    bound: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return `spline`, computed step by step for the inputs [B, h, T] inside the bounds only.

    These are found and checked first.
    """
    inside = (x >= -bound) & (x <= bound)
    x = x.float()
    outputs = x.clone()
    log_derivative = torch.zeros_like(x)
    if inside.any():
        picked = x[inside]
        if picked.min() < -bound or picked.max() > bound:
            raise ValueError("an input lies outside the spline")
        row, rows = picked[None, None], rows_of(shape, x.size(1))[inside].t()[None]
        values = spline_in_torch(row, rows, torch.ones_like(row), None, inverse, bound, scale)
        outputs[inside], log_derivative[inside] = (value[0, 0] for value in values[:2])
    log_derivative = log_derivative * mask
    if log_det is not None:
        log_derivative = log_det + log_derivative
    return outputs * mask, log_derivative


def norm_then_gelu(
    x: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    residual: Tensor | None = None,
    mask: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return `norm_gelu` [B, C, T], computed step by step."""
    if bias is not None:
        x = x + bias[:, None]
    y = F.gelu(F.layer_norm(x.transpose(1, 2), [x.size(1)], gamma, beta, eps).transpose(1, 2))
    y = y if residual is None else residual + y
    return y if mask is None else y * mask


def attended_as_transformers(
    self: GatedAttention,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return WavLM's attention [B, T, hidden], computed in transformers' way and order."""
    B, T, width = hidden_states.shape
    if position_bias is None:
        position_bias = self.compute_bias(T, T).unsqueeze(0).repeat(B, 1, 1, 1).flatten(0, 1)
    by_head = hidden_states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
    update, reset = torch.sigmoid(self.gate(by_head)).chunk(2, dim=-1)
    gate = update * (reset * self.gate_factor[:, None, None] - 1.0) + 2.0
    weights_of = separate_weights(self)
    biases = self.projections.bias.unflatten(0, (3, width))
    query = hidden_states.transpose(0, 1)
    heard, weights = F.multi_head_attention_forward(
        query,
        query,
        query,
        width,
        self.heads,
        torch.empty([0]),
        # the scale is part of the projection here, and added by this function
        torch.cat([biases[0] * (width / self.heads) ** 0.5, biases[1], biases[2]]),
        None,
        None,
        False,
        0.0,
        self.out_proj.weight,
        self.out_proj.bias,
        training=False,
        attn_mask=gate.flatten(0, 1) * position_bias,
        use_separate_proj_weight=True,
        q_proj_weight=weights_of["query"],
        k_proj_weight=weights_of["key"],
        v_proj_weight=weights_of["value"],
    )
    assert weights is not None
    return heard.transpose(0, 1), weights, position_bias


@cache
def separate_weights(attention: GatedAttention) -> dict[str, Tensor]:
    """Return an attention's weights of query, key and value, as transformers keeps them."""
    query, key, value = attention.projections.weight.detach().chunk(3)
    scale = (query.size(1) / attention.heads) ** 0.5
    return {"query": query * scale, "key": key, "value": value}


def checked_mel(y: Tensor, **kwargs: Any) -> Tensor:
    """Return `mel_spectrogram`, [B, n_mel_channels, frames], of y [B, T] with a range check."""
    if y.min() < -1.0 or y.max() > 1.0:
        print("a waveform leaves [-1, 1]")
    return mel_spectrogram(y, **kwargs)
