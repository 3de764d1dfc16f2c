"""Duration predictors: the stochastic one of VITS (a flow) and the deterministic one of VITS2.

Names: w durations in frames, logw their logarithm, x hidden text, g speaker; T_x text tokens.
"""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.networks.generator.flows import Flip
from trainable.networks.kernels.norm_gelu import norm_gelu
from trainable.networks.kernels.spline import spline
from trainable.networks.layers.modules import Dropout, LayerNorm
from trainable.networks.layers.weight_norm import Conv1d, channels_last


class DDSConv(nn.Module):
    """Dilated depth-separable convolutions with residuals (VITS appendix B.1)."""

    def __init__(
        self, channels: int, kernel_size: int, n_layers: int, p_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.drop = Dropout(p_dropout)
        self.convs_sep = nn.ModuleList(
            Conv1d(
                channels,
                channels,
                kernel_size,
                groups=channels,
                dilation=kernel_size**i,
                padding="same",
            )
            for i in range(n_layers)
        )
        self.convs_1x1 = nn.ModuleList(Conv1d(channels, channels, 1) for _ in range(n_layers))
        self.norms_1 = nn.ModuleList(LayerNorm(channels) for _ in range(n_layers))
        self.norms_2 = nn.ModuleList(LayerNorm(channels) for _ in range(n_layers))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Map [B, C, T], mask [B, 1, T], condition [B, C, T] or None -> [B, C, T]."""
        if g is not None:
            x = x + g
        # The residual is masked in every layer, not only where the convolutions read it.
        # as LayerNorm leaves them: of mixed layouts, gelu's backward pass is 4 times slower
        x = channels_last(x * x_mask)
        layers: Iterable[Any] = zip(
            self.convs_sep, self.convs_1x1, self.norms_1, self.norms_2, strict=True
        )
        for separable, pointwise, norm_1, norm_2 in layers:
            y = norm_gelu(*_apart(separable, x), norm_1.gamma, norm_1.beta, eps=norm_1.eps)
            y, bias = _apart(pointwise, y)
            last = partial(norm_gelu, y, bias, norm_2.gamma, norm_2.beta, eps=norm_2.eps)
            if self.training and self.drop.p > 0:
                x = (x + self.drop(last())) * x_mask
            else:
                x = last(residual=x, mask=x_mask)
        return x


def _apart(conv: Conv1d, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Convolve [B, C_in, T]; return the bias apart where adding it takes a kernel of its own."""
    if x.device.type == "cpu":
        return conv(x), None
    return conv._conv_forward(x, conv.weight, None), conv.bias


class ElementwiseAffine(nn.Module):
    """Flow y = m + exp(logs) * x, with a scale and a shift per channel; starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(channels, 1))
        self.logs = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor, x_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map x [B, C, T], mask [B, 1, T] -> y [B, C, T], log determinant [B]."""
        y, log_det = self.per_token(x, x_mask)
        return y, log_det.sum([1, 2])

    def per_token(self, x: Tensor, x_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map x [B, C, T], mask [B, 1, T] -> y [B, C, T], log determinant per token [B, 1, T]."""
        y = torch.addcmul(self.m, torch.exp(self.logs), x) * x_mask
        return y, self.logs.sum() * x_mask

    def inverse(self, y: Tensor, x_mask: Tensor) -> Tensor:
        """Map y [B, c, T], mask [B, 1, T] -> x [B, c, T], of the first c channels."""
        m, logs = self.m[: y.size(1)], self.logs[: y.size(1)]
        return (y - m) * torch.exp(-logs) * x_mask


class ConvFlow(nn.Module):
    """Neural spline coupling (Durkan et al., 2019, arXiv:1906.04032).

    x1 goes through a spline whose shape x0 decides.
    """

    def __init__(
        self,
        in_channels: int,
        filter_channels: int,
        kernel_size: int,
        n_layers: int,
        num_bins: int = 10,
        tail_bound: float = 5.0,
    ) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.tail_bound = tail_bound
        self.scale = math.sqrt(filter_channels)
        half = in_channels // 2
        self.pre = nn.Conv1d(half, filter_channels, 1)
        self.convs = DDSConv(filter_channels, kernel_size, n_layers)
        self.proj = Conv1d(filter_channels, half * (3 * num_bins - 1), 1)
        nn.init.zeros_(self.proj.weight)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def couple(
        self,
        x0: Tensor,
        x1: Tensor,
        x_mask: Tensor,
        g: Tensor,
        log_det: Tensor | None = None,
        inverse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Apply the spline that x0 decides to x1.

        Args:
            x0: [B, C / 2, T].
            x1: [B, C / 2, T].
            x_mask: [B, 1, T].
            g: [B, filter, T] condition.
            log_det: [B, C / 2, T] log determinant so far; None for zeros.
            inverse: whether to apply the inverse function.

        Returns:
            The new x1, and log_det with the logarithm of the applied function's derivative.
        """
        return spline(
            x1,
            self.proj(self.convs(self.pre(x0), x_mask, g)),
            x_mask,
            log_det,
            inverse=inverse,
            bound=self.tail_bound,
            scale=self.scale,
        )

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """Map x [B, C, T], mask [B, 1, T], condition [B, filter, T] -> y, log determinant [B]."""
        x0, x1 = (x * x_mask).chunk(2, dim=1)
        x1, log_det = self.couple(x0, x1, x_mask, g)
        return torch.cat([x0, x1], dim=1), log_det.sum([1, 2])

    def inverse(self, y: Tensor, x_mask: Tensor, g: Tensor) -> Tensor:
        """Map y [B, C, T], mask [B, 1, T], condition [B, filter, T] -> x [B, C, T]."""
        y0, y1 = (y * x_mask).chunk(2, dim=1)
        return torch.cat([y0, self.couple(y0, y1, x_mask, g, inverse=True)[0]], dim=1)


def _duration_flows(channels: int, kernel_size: int, n_flows: int) -> nn.ModuleList:
    """Make an affine flow, then spline couplings each followed by a flip."""
    flows = nn.ModuleList([ElementwiseAffine(2)])
    for _ in range(n_flows):
        flows.extend([ConvFlow(2, channels, kernel_size, n_layers=3), Flip()])
    return flows


def _run_flows(
    flows: nn.ModuleList, z: Tensor, x_mask: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply the flows: [B, 2, T] -> both channels and the log determinant per token, [B, 1, T]."""
    affine: Any = flows[0]
    couplings: Iterable[Any] = flows[1:]
    z, log_det = affine.per_token(z, x_mask)
    z0, z1 = z.chunk(2, dim=1)
    for flow in couplings:
        if isinstance(flow, Flip):
            z0, z1 = z1, z0
        else:
            z1, log_det = flow.couple(z0, z1, x_mask, g, log_det)
    return z0, z1, log_det


class StochasticDurationPredictor(nn.Module):
    """Flow over durations (VITS section 2.2.2 and appendix B).

    It has variational dequantisation and variational data augmentation.

    Args:
        in_channels: channels of the hidden text, and the width of all layers.
        filter_channels: accepted for the sake of published configurations; the width is
            in_channels.
        kernel_size: kernel of the convolutions.
        p_dropout: probability of dropout.
        n_flows: spline couplings of the duration flow; the posterior's has four.
        gin_channels: channels of the speaker; 0 leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        filter_channels: int,
        kernel_size: int,
        p_dropout: float,
        n_flows: int = 4,
        gin_channels: int = 0,
    ) -> None:
        super().__init__()
        width = in_channels
        self.flows = _duration_flows(width, kernel_size, n_flows)
        self.post_pre = nn.Conv1d(1, width, 1)
        self.post_proj = Conv1d(width, width, 1)
        self.post_convs = DDSConv(width, kernel_size, n_layers=3, p_dropout=p_dropout)
        self.post_flows = _duration_flows(width, kernel_size, n_flows=4)
        self.pre = nn.Conv1d(in_channels, width, 1)
        self.proj = Conv1d(width, width, 1)
        self.convs = DDSConv(width, kernel_size, n_layers=3, p_dropout=p_dropout)
        if gin_channels > 0:
            self.cond = nn.Conv1d(gin_channels, width, 1)

    def _condition(self, x: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        """Return text and speaker for the flows, [B, width, T_x]; the encoder gets no gradient."""
        h = self.pre(x.detach())
        if g is not None:
            h = h + self.cond(g.detach())
        return self.proj(self.convs(h, x_mask.to(h.dtype)))

    def _negative_log_likelihood(self, h: Tensor, x_mask: Tensor, w: Tensor) -> Tensor:
        """Compute an upper bound of -log p(w | text): equation 7 of VITS, for one draw of noise."""
        mask = x_mask.to(h.dtype)
        h_w = self.post_proj(self.post_convs(self.post_pre(w), mask))
        e_q = torch.randn(w.size(0), 2, w.size(2), device=w.device, dtype=w.dtype) * x_mask
        # u dequantises the whole number w, v is the added channel
        z_u, z_v, log_q = _run_flows(self.post_flows, e_q, mask, h + h_w)
        u = torch.sigmoid(z_u) * x_mask
        log_u = (2 * F.logsigmoid(z_u) - z_u) * x_mask  # log(u (1 - u))

        log_duration = torch.log(((w - u) * x_mask).clamp_min(1e-5)) * x_mask
        z_0, z_1, log_p = _run_flows(self.flows, torch.cat([log_duration, z_v], dim=1), mask, h)
        # the normal distributions' constants are the same on both sides
        squares = torch.cat([z_0, z_1], dim=1).square() - e_q.square()
        others = log_duration - log_u - log_q - log_p
        return 0.5 * squares.sum([1, 2]) + others.sum([1, 2])

    def _sample(
        self, h: Tensor, x_mask: Tensor, noise_scale: float | Tensor, noise: Tensor | None
    ) -> Tensor:
        """Draw logw by the inverse flow."""
        if noise is None:
            # of the type of the mask: in half precision other noise is drawn
            size = h.size(0), 2, h.size(2)
            noise = torch.randn(size, device=h.device, dtype=x_mask.dtype)
        mask = x_mask.to(h.dtype)
        affine: Any = self.flows[0]
        # the coupling at 1 changes the added channel only, which is dropped
        couplings: Iterable[Any] = reversed(self.flows[2:])
        z0, z1 = (noise * noise_scale).chunk(2, dim=1)
        for flow in couplings:
            if isinstance(flow, Flip):
                z0, z1 = z1, z0
            else:
                z1, _ = flow.couple(z0, z1, mask, h, inverse=True)
        return affine.inverse(z0, x_mask)

    def forward(
        self,
        x: Tensor,
        x_mask: Tensor,
        w: Tensor | None = None,
        g: Tensor | None = None,
        reverse: bool = False,
        noise_scale: float | Tensor = 1.0,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Score given durations, or draw some.

        Args:
            x: [B, in, T_x] hidden text; no gradient flows into it.
            x_mask: [B, 1, T_x].
            w: [B, 1, T_x] durations in frames, for reverse=False.
            g: [B, gin, 1] speaker, or None; no gradient flows into it.
            reverse: False to score w, True to draw logw.
            noise_scale: standard deviation of the drawn noise, a number or [B, 1, 1].
            noise: [B, 2, T_x] standard normal to take instead of drawing it, for reverse=True.

        Returns:
            reverse=False: upper bound of the negative log likelihood of w, [B], in nats.
            reverse=True: logw [B, 1, T_x].
        """
        h = self._condition(x, x_mask, g)
        if reverse:
            return self._sample(h, x_mask, noise_scale, noise)
        assert w is not None
        return self._negative_log_likelihood(h, x_mask, w)


class DurationPredictor(nn.Module):
    """Deterministic predictor of logw.

    It is FastSpeech's, as in Glow-TTS (Kim et al., 2020, arXiv:2005.11129).

    Args:
        in_channels: channels of the hidden text.
        filter_channels: width.
        kernel_size: kernel of the convolutions, odd.
        p_dropout: probability of dropout.
        gin_channels: channels of the speaker; 0 leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        filter_channels: int,
        kernel_size: int,
        p_dropout: float,
        gin_channels: int = 0,
    ) -> None:
        super().__init__()
        self.drop = Dropout(p_dropout)
        self.conv_1 = nn.Conv1d(in_channels, filter_channels, kernel_size, padding=kernel_size // 2)
        self.norm_1 = LayerNorm(filter_channels)
        self.conv_2 = nn.Conv1d(
            filter_channels, filter_channels, kernel_size, padding=kernel_size // 2
        )
        self.norm_2 = LayerNorm(filter_channels)
        self.proj = nn.Conv1d(filter_channels, 1, 1)
        if gin_channels > 0:
            self.cond = nn.Conv1d(gin_channels, in_channels, 1)

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Predict logw.

        Args:
            x: [B, in, T_x] hidden text; no gradient flows into it.
            x_mask: [B, 1, T_x].
            g: [B, gin, 1] speaker, or None; no gradient flows into it.

        Returns:
            logw [B, 1, T_x], zero in the padding.
        """
        x = x.detach()
        if g is not None:
            x = x + self.cond(g.detach())
        x = self.drop(self.norm_1(torch.relu(self.conv_1(x * x_mask))))
        x = self.drop(self.norm_2(torch.relu(self.conv_2(x * x_mask))))
        return self.proj(x * x_mask) * x_mask
