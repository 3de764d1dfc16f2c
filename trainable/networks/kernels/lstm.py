"""The recurrence of a bidirectional LSTM of one layer as one operator per pass, for GPUs.

Hochreiter and Schmidhuber, 1997, with the forget gates of Gers et al., 2000. cuDNN launches two
kernels per time step and direction, and four in the backward pass: here one Triton kernel walks
through time, a program per direction and block of rows. The products with the inputs, and all
weight gradients, are single matrix products outside. All sums have one order.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable.networks.kernels.support import operator, takes_kernels


def lstm_in_torch(gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the recurrence from its beginning at zero.

    Args:
        gates: [B, T, 2, 4 H] the inputs' part of the gates i, f, g, o, forwards and backwards.
        weight: [2, 4 H, H] of the hidden state.

    Returns:
        Hidden states and cells, [B, T, 2, H] each, and the gates, [B, T, 2, 4 H].
    """
    B, T, _, size = gates.shape
    dtype = torch.promote_types(gates.dtype, torch.float32)
    h = torch.zeros(B, T, 2, size // 4, dtype=dtype, device=gates.device)
    c, opened = torch.zeros_like(h), torch.zeros_like(gates, dtype=dtype)
    zero = torch.zeros_like(h[:, 0, 0])
    for way, times in enumerate((range(T), range(T - 1, -1, -1))):
        h_before = c_before = zero
        for t in times:
            i, f, g, o = (gates[:, t, way] + F.linear(h_before, weight[way])).chunk(4, 1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            c_before = f * c_before + i * g
            h_before = o * c_before.tanh()
            h[:, t, way], c[:, t, way] = h_before, c_before
            opened[:, t, way] = torch.cat([i, f, g, o], 1)
    return h, c, opened


def lstm_backward_in_torch(
    to: Tensor, weight: Tensor, h: Tensor, c: Tensor, opened: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the gates [B, T, 2, 4 H]; and the states before, [B, T, 2, H]."""
    T = h.size(1)
    of_gates, before = torch.zeros_like(opened), torch.zeros_like(h)
    before[:, 1:, 0], before[:, :-1, 1] = h[:, :-1, 0], h[:, 1:, 1]
    cells = torch.zeros_like(c)
    cells[:, 1:, 0], cells[:, :-1, 1] = c[:, :-1, 0], c[:, 1:, 1]
    for way, times in enumerate((range(T - 1, -1, -1), range(T))):
        of_h = of_c = torch.zeros_like(h[:, 0, 0])
        for t in times:
            i, f, g, o = opened[:, t, way].chunk(4, 1)
            of_h = of_h + to[:, t, way]
            cell = c[:, t, way].tanh()
            of_c = of_c + of_h * o * (1 - cell.square())
            of_i, of_f, of_g = of_c * g, of_c * cells[:, t, way], of_c * i
            parts = of_i * i * (1 - i), of_f * f * (1 - f), of_g * (1 - g * g)
            of_gates[:, t, way] = torch.cat([*parts, of_h * cell * o * (1 - o)], 1)
            of_h = of_gates[:, t, way] @ weight[way]
            of_c = of_c * f
    return of_gates, before


def _forward_in_triton(gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from trainable.networks.kernels.lstm_triton import forward

    return forward(gates, weight)


def _forward_shapes(gates: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, T, _, size = gates.shape
    h = gates.new_empty(B, T, 2, size // 4, dtype=torch.float32)
    return h, torch.empty_like(h), h.new_empty(B, T, 2, size)


def _backward_in_triton(to: Tensor, *args: Tensor) -> tuple[Tensor, Tensor]:
    from trainable.networks.kernels.lstm_triton import backward

    return backward(to, *args)


def _backward_shapes(
    to: Tensor, weight: Tensor, h: Tensor, c: Tensor, opened: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(opened), torch.empty_like(h)


FORWARD = operator(
    "lstm(Tensor gates, Tensor weight) -> (Tensor, Tensor, Tensor)",
    lstm_in_torch,
    _forward_in_triton,
    _forward_shapes,
)
BACKWARD = operator(
    "lstm_backward(Tensor to, Tensor weight, Tensor h, Tensor c, Tensor opened)"
    " -> (Tensor, Tensor)",
    lstm_backward_in_torch,
    _backward_in_triton,
    _backward_shapes,
)


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor) -> Tensor:
        h, c, opened = FORWARD(gates, weight)
        ctx.save_for_backward(weight, h, c, opened)
        ctx.dtype = gates.dtype
        return h

    @staticmethod
    def backward(ctx: Any, to: Tensor) -> tuple[Tensor, Tensor | None]:
        weight, h, c, opened = ctx.saved_tensors
        of_gates, before = BACKWARD(to, weight, h, c, opened)
        of_weight = None
        if ctx.needs_input_grad[1]:
            rows = of_gates.flatten(0, 1).permute(1, 2, 0)  # [2, 4 H, B T]
            of_weight = torch.bmm(rows, before.flatten(0, 1).transpose(0, 1)).to(weight.dtype)
        return of_gates.to(ctx.dtype), of_weight


def recurrence(gates: Tensor, weight: Tensor) -> Tensor:
    """Return the hidden states of both directions, [B, T, 2, H], in at least fp32.

    Args:
        gates: [B, T, 2, 4 H] the inputs' part of the gates i, f, g, o, forwards and backwards.
        weight: [2, 4 H, H] of the hidden state.
    """
    return _Lstm.apply(gates, weight)


def read_both_ways(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Run a bidirectional LSTM of one layer, with biases, over [B, T, in] -> [B, T, 2 H]."""
    if not takes_kernels(x):
        return lstm(x)[0]
    ways = ("l0", "l0_reverse")
    of_inputs, of_states, bias_1, bias_2 = (
        torch.cat([getattr(lstm, f"{name}_{way}") for way in ways])
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    gates = F.linear(x, of_inputs, bias_1 + bias_2).unflatten(2, (2, -1))
    return recurrence(gates, of_states.unflatten(0, (2, -1))).flatten(2)
