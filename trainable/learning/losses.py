"""Losses of the generator and of its discriminators, all computed in at least fp32.

Sources: VITS (Kim et al., 2021, arXiv:2106.06103), HiFi-GAN (Kong et al., 2020, arXiv:2010.05646),
least-squares GAN (Mao et al., 2017, arXiv:1611.04076), WavLM losses of StyleTTS 2 (Li et al., 2023,
arXiv:2306.07691).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from data.precision import widen
from trainable.networks.kernels import support
from trainable.networks.kernels.convolutions.casts import cast
from trainable.networks.layers.weight_norm import joined_weights


def feature_loss(fmap_r: Iterable[Iterable[Tensor]], fmap_g: Iterable[Iterable[Tensor]]) -> Tensor:
    """Feature matching: 2 * sum over all feature maps of mean |real - generated|.

    Twice HiFi-GAN's equation 8.

    Args:
        fmap_r: feature maps of the real batch, one list per discriminator; they get no gradient.
        fmap_g: the same of the generated batch.

    Returns:
        [] fp32.
    """
    pairs = [
        (real.detach(), generated)
        for maps_r, maps_g in zip(fmap_r, fmap_g, strict=True)
        for real, generated in zip(maps_r, maps_g, strict=True)
    ]
    if support.joined(pairs[0][1]):
        reals, generateds = zip(*pairs, strict=True)
        return _FeatureDistance.apply(reals, *generateds)
    distances = [torch.mean(torch.abs(widen(real) - widen(made))) for real, made in pairs]
    return 2 * torch.stack(distances).sum()


class _FeatureDistance(torch.autograd.Function):
    """The sum over pairs of maps of 2 * mean |real - generated|, each operator over all pairs.

    For GPUs: on a CPU such sums over lists add up one by one in fp32, which is too coarse.
    """

    @staticmethod
    def forward(ctx: Any, reals: Sequence[Tensor], *generated: Tensor) -> Tensor:
        """Compute the distance [] of maps of the same shapes."""
        differences = torch._foreach_sub(_widened(generated), _widened(reals))
        ctx.save_for_backward(*differences)
        ctx.types = [made.dtype for made in generated]
        sums = torch._foreach_norm(differences, 1)
        means = torch._foreach_mul(sums, [2 / made.numel() for made in generated])
        return torch.stack(means).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the generated maps."""
        found = torch._foreach_sign(ctx.saved_tensors)
        torch._foreach_mul_(found, [2 / sign.numel() for sign in found])
        torch._foreach_mul_(found, gradients[0])
        return None, *cast(found, ctx.types)


def _widened(tensors: Sequence[Tensor]) -> list[Tensor]:
    return cast(tensors, [torch.promote_types(x.dtype, torch.float32) for x in tensors])


def discriminator_loss(
    real_outputs: Iterable[Tensor], generated_outputs: Iterable[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Least-squares loss of discriminators: sum of mean (1 - D(real))^2 + mean D(generated)^2.

    Args:
        real_outputs: one tensor per discriminator. A single tensor [B, T, 1] is taken item by item,
            so that the loss sums over the batch: what the reference trainer does for the duration
            discriminator.
        generated_outputs: the same of the generated batch.

    Returns:
        The loss [] fp32, its real parts and its generated parts, each [].
    """
    pairs = list(zip(real_outputs, generated_outputs, strict=True))
    reals = [real for real, _ in pairs]
    made = [generated for _, generated in pairs]
    if support.joined(reals[0]):
        total, *parts = _MeanSquares.apply([1.0] * len(reals) + [0.0] * len(made), *reals, *made)
        return total, parts[: len(reals)], parts[len(reals) :]
    r_losses = [torch.mean((1 - widen(real)).square()) for real in reals]
    g_losses = [torch.mean(widen(generated).square()) for generated in made]
    return torch.stack(r_losses).sum() + torch.stack(g_losses).sum(), r_losses, g_losses


def generator_loss(outputs: Iterable[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Least-squares loss of the generator: sum of mean (1 - D(generated))^2.

    Args:
        outputs: one tensor per discriminator, or a single tensor [B, T, 1], as in
            `discriminator_loss`.

    Returns:
        The loss [] fp32 and its parts, each [].
    """
    outputs = list(outputs)
    if support.joined(outputs[0]):
        total, *losses = _MeanSquares.apply([1.0] * len(outputs), *outputs)
        return total, losses
    losses = [torch.mean((1 - widen(output)).square()) for output in outputs]
    return torch.stack(losses).sum(), losses


class _MeanSquares(torch.autograd.Function):
    """The sum of the means of (score - target)^2, and these means, which have no gradient."""

    @staticmethod
    def forward(ctx: Any, targets: Sequence[float], *scores: Tensor) -> tuple[Tensor, ...]:
        """Compute the sum [] and the means [] of scores [...] with a target each."""
        differences = torch._foreach_sub(_widened(scores), targets)
        ctx.save_for_backward(*differences)
        ctx.types = [score.dtype for score in scores]
        norms = torch._foreach_norm(differences, 2)
        factors = [score.numel() ** -0.5 for score in scores]
        means = torch.stack(torch._foreach_mul(norms, factors)).square()
        parts = means.clone().unbind(0)
        ctx.mark_non_differentiable(*parts)
        return means.sum(), *parts

    @staticmethod
    def backward(ctx: Any, *to: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the scores."""
        factors = [2 / difference.numel() for difference in ctx.saved_tensors]
        found = torch._foreach_mul(ctx.saved_tensors, factors)
        torch._foreach_mul_(found, to[0])
        return None, *cast(found, ctx.types)


def masked_discriminator_loss(
    real_outputs: Sequence[Tensor], generated_outputs: Sequence[Tensor], mask: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Least-squares loss of the duration discriminator over real tokens, a mean over predictors.

    The corrected form: each predictor is judged by itself (the reference adds up their scores, so
    that one can hide the other's mistakes), padding has no part in it, and it does not grow with
    the batch.

    Args:
        real_outputs: scores [B, T, 1], one per predictor.
        generated_outputs: the same of predicted durations.
        mask: [B, 1, T], 1 on tokens.

    Returns:
        The loss [] fp32, its real parts and its generated parts, each [], one per predictor.
    """
    r_losses = [_masked_mean((1 - widen(real)).square(), mask) for real in real_outputs]
    g_losses = [_masked_mean(widen(generated).square(), mask) for generated in generated_outputs]
    return torch.stack(r_losses).mean() + torch.stack(g_losses).mean(), r_losses, g_losses


def masked_generator_loss(outputs: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Least-squares loss of the duration predictors over real tokens.

    See `masked_discriminator_loss`.

    Args:
        outputs: scores [B, T, 1], one per predictor.
        mask: [B, 1, T].

    Returns:
        The loss [] fp32 and its parts, each [].
    """
    losses = [_masked_mean((1 - widen(output)).square(), mask) for output in outputs]
    return torch.stack(losses).mean(), losses


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean where the mask is 1: [B, T, 1], [B, 1, T] -> []."""
    weights = widen(mask.transpose(1, 2))
    return (values * weights).sum() / weights.sum()


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, z_mask: Tensor) -> Tensor:
    """KL divergence of the posterior from the prior (VITS equations 3-4), estimated at the drawn z.

    mean over frames of sum over channels: logs_p - logs_q - 1/2 + (z_p - m_p)^2 / (2 exp(2
    logs_p)).

    Args:
        z_p: [B, C, T_y] the posterior's draw through the flow.
        logs_q: [B, C, T_y].
        m_p: [B, C, T_y].
        logs_p: [B, C, T_y].
        z_mask: [B, 1, T_y].

    Returns:
        [] fp32, in nats per frame.
    """
    z_p, logs_q, m_p, logs_p, z_mask = map(widen, (z_p, logs_q, m_p, logs_p, z_mask))
    kl = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * torch.exp(-2 * logs_p)
    return torch.sum(kl * z_mask) / torch.sum(z_mask)


def wavlm_feature_loss(hidden_real: Tensor, hidden_gen: Tensor) -> Tensor:
    """Feature matching on WavLM's hidden states: sum over the layers of mean |real - generated|.

    Args:
        hidden_real: [B, L, hidden, T'] of `WavLMFeatures`; gets no gradient.
        hidden_gen: the same of generated audio.

    Returns:
        [] fp32.
    """
    distance = torch.abs(widen(hidden_real.detach()) - widen(hidden_gen))
    return distance.mean(dim=(0, 2, 3)).sum()


def wavlm_generator_loss(wd: nn.Module, hidden_gen: Tensor) -> Tensor:
    """Adversarial loss of the generator from the WavLM discriminator: mean (1 - WD(generated))^2.

    Args:
        wd: WavLMDiscriminator.
        hidden_gen: [B, L, hidden, T'] of `WavLMFeatures`.

    Returns:
        [] fp32.
    """
    return torch.mean((1 - widen(wd(hidden_gen.flatten(1, 2)))).square())


def wavlm_discriminator_loss(wd: nn.Module, hidden_real: Tensor, hidden_gen: Tensor) -> Tensor:
    """Loss of the WavLM discriminator: mean (1 - WD(real))^2 + mean WD(generated)^2.

    Args:
        wd: WavLMDiscriminator.
        hidden_real: [B, L, hidden, T'] of `WavLMFeatures`.
        hidden_gen: the same of generated audio; gets no gradient.

    Returns:
        [] fp32.
    """
    with joined_weights(wd):
        real = widen(wd(hidden_real.detach().flatten(1, 2)))
        generated = widen(wd(hidden_gen.detach().flatten(1, 2)))
    return torch.mean((1 - real).square()) + torch.mean(generated.square())
