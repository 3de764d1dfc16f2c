"""Monotonic alignment search: Glow-TTS (Kim et al., 2020, arXiv:2005.11129), VITS section 2.2.1."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data.precision import full_precision, widen
from trainable.networks.kernels.support import operator

UNREACHABLE = -1e9


def beta_binomial_prior(x_lengths: Tensor, y_lengths: Tensor, t_x: int, t_y: int) -> Tensor:
    """Return how likely each token is in each frame if nothing is known of either.

    A band along the diagonal: of T frames and N tokens, token k of frame t is beta-binomial with
    n = N - 1, alpha = t and beta = T - t + 1 (Badlani et al., 2021, arXiv:2108.10447, section 2.3).

    Args:
        x_lengths: [B] int64 tokens of each text.
        y_lengths: [B] int64 frames of each recording.
        t_x: tokens to return.
        t_y: frames to return.

    Returns:
        Log probabilities [B, t_y, t_x] fp32; what they are in the padding has no meaning.
    """
    device = x_lengths.device
    k = torch.arange(t_x, device=device, dtype=torch.float32)
    t = torch.arange(1, t_y + 1, device=device, dtype=torch.float32)[:, None]
    n = (x_lengths - 1).float()[:, None, None]
    behind = (n - k).clamp_min(0.0)
    beta = (y_lengths.float()[:, None, None] - t + 1).clamp_min(1.0)
    combinations = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(behind + 1)
    return combinations + _log_beta(k + t, behind + beta) - _log_beta(t, beta)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _best_scores(neg_cent: Tensor, tokens: Tensor, frames: Tensor) -> Tensor:
    """Compute the score of the best path to each cell: algorithm 1's forward pass.

    Args:
        neg_cent: [B, T_y, T_x] fp32.
        tokens: [T_x] positions.
        frames: [T_y, 1] positions.

    Returns:
        [T_y, B, T_x + 1] fp32; cell (y, b, x + 1) is for token x; column 0 and all x > y are
        unreachable.
    """
    batch, t_y, t_x = neg_cent.shape
    # nothing is added above the diagonal, so what is unreachable stays exactly so
    gains = neg_cent.masked_fill(tokens > frames, 0.0).transpose(0, 1).contiguous().unbind(0)
    scores = neg_cent.new_full((t_y, batch, t_x + 1), UNREACHABLE)

    # a path stays on its token, or comes from the token before: views of the same scores
    stay = scores[:, :, 1:].unbind(0)
    move = scores[:, :, :-1].unbind(0)
    stay[0][:, 0] = gains[0][:, 0]
    for y in range(1, t_y):
        torch.add(torch.maximum(stay[y - 1], move[y - 1]), gains[y], out=stay[y])
    return scores


def _trace_back(came_from: Tensor, last: Tensor) -> Tensor:
    """Follow came_from from the last frame to the first: algorithm 1's backward pass.

    It composes the maps of neighbouring frames in log2(T_y) rounds, where following them one by one
    takes T_y.

    Args:
        came_from: [T_y, B, T_x] int64, token in frame y -> token in frame y - 1.
        last: [B] int64 token in the last frame.

    Returns:
        [T_y, B] int64 token in each frame.
    """
    jump = came_from  # [n, B, T_x]: token in frame y + span - 1 -> token in frame y - 1
    span = 1
    while span < came_from.size(0):
        jump = torch.cat([jump[:-span].gather(2, jump[span:]), jump[-span:]])
        span *= 2
    visited = jump[1:].gather(2, last.expand(jump.size(0) - 1, -1).unsqueeze(2)).squeeze(2)
    return torch.cat([visited, last.unsqueeze(0)])


def path_in_torch(neg_cent: Tensor, mask: Tensor) -> Tensor:
    """Compute `maximum_path` with torch's operators, some 800 for 400 frames."""
    y_lengths = (mask[:, :, 0] != 0).sum(1)
    x_lengths = (mask[:, 0, :] != 0).sum(1)
    tokens = torch.arange(neg_cent.size(2), device=neg_cent.device)
    frames = torch.arange(neg_cent.size(1), device=neg_cent.device).unsqueeze(1)
    scores = _best_scores(neg_cent.float(), tokens, frames)

    # moved[y, b, x]: the path, standing on token x in frame y, came from token x - 1
    moved = torch.empty_like(scores[:, :, 1:], dtype=torch.bool)
    moved[0] = False
    torch.lt(scores[:-1, :, 1:], scores[:-1, :, :-1], out=moved[1:])
    moved |= (tokens == frames).unsqueeze(1)
    moved[:, :, 0] = False

    inside = (frames < y_lengths).unsqueeze(2)  # [T_y, B, 1]
    came_from = tokens - (moved & inside).to(torch.long)
    visited = _trace_back(came_from, (x_lengths - 1).clamp_min(0))
    path = (visited.unsqueeze(2) == tokens) & inside  # [T_y, B, T_x]
    return path.transpose(0, 1).to(neg_cent.dtype)


def _path_in_triton(neg_cent: Tensor, mask: Tensor) -> Tensor:
    from trainable.networks.kernels.alignment_triton import search

    return search(neg_cent, mask)


def _shapes(neg_cent: Tensor, mask: Tensor) -> Tensor:
    return torch.empty(neg_cent.shape, dtype=neg_cent.dtype, device=neg_cent.device)


SEARCH = operator(
    "maximum_path(Tensor neg_cent, Tensor mask) -> Tensor", path_in_torch, _path_in_triton, _shapes
)


@torch.no_grad()
def maximum_path(neg_cent: Tensor, mask: Tensor) -> Tensor:
    """Find the best monotonic alignment that skips no token, for a batch, on the device.

    The path starts at the first token, ends at the last, and moves by at most one token per frame.
    On equal scores (followed from the end) it stays on the token. An item with more tokens than
    frames has no such path: all its frames go to the last token. On a GPU it is one kernel.

    Args:
        neg_cent: [B, T_y, T_x] log likelihood of each frame under each token.
        mask: [B, T_y, T_x], nonzero inside each item's frames and tokens.

    Returns:
        [B, T_y, T_x] path, one 1 per frame inside the mask, in the type of neg_cent.
    """
    return SEARCH(neg_cent, mask)


@dataclass
class AlignmentSearch:
    """The search of a training's alignments (VITS section 2.2.1), with VITS2's noise and a prior.

    Attributes:
        use_noise: whether the scores get noise.
        first_noise: scale of that noise at the first step, relative to the scores' standard
            deviation.
        noise_delta: what each step takes off that scale.
        first_prior: weight of the diagonal at the first step, beside the likelihood.
        prior_steps: steps over which that weight falls to 0.
        noise: the scale in use; `anneal` sets this and the next.
        prior: the weight in use.
    """

    use_noise: bool = True
    first_noise: float = 0.01
    noise_delta: float = 2e-6
    first_prior: float = 0.0
    prior_steps: int = 1

    def __post_init__(self) -> None:
        self.anneal(0)

    def anneal(self, steps: int) -> None:
        """Set what the search adds for the training step that follows `steps` steps."""
        self.noise = max(self.first_noise - self.noise_delta * steps, 0.0)
        self.prior = self.first_prior * max(1 - steps / self.prior_steps, 0.0)

    @torch.no_grad()
    def align(
        self,
        z_p: Tensor,
        m_p: Tensor,
        logs_p: Tensor,
        x_mask: Tensor,
        y_mask: Tensor,
        frames: int | None = None,
        tokens: int | None = None,
    ) -> Tensor:
        """Search the path, in at least fp32, under autocast and where networks may use TF32 too.

        Args:
            z_p: [B, inter, T_y].
            m_p: [B, inter, T_x].
            logs_p: [B, inter, T_x].
            x_mask: [B, 1, T_x].
            y_mask: [B, 1, T_y].
            frames: most frames of an utterance; None: T_y.
            tokens: most tokens of a text; None: T_x.

        Returns:
            attn [B, 1, T_y, T_x].
        """
        with torch.autocast(z_p.device.type, enabled=False):
            neg_cent = _log_likelihood(widen(z_p), widen(m_p), widen(logs_p))
            if self.use_noise:
                # over the padding too, as in the reference, but only up to the longest item
                scale = torch.std(neg_cent[:, :frames, :tokens])
                noise = scale * torch.randn_like(neg_cent)
                neg_cent = neg_cent + noise * self.noise
            if self.prior > 0:
                x_lengths, y_lengths = (m.sum([1, 2]).long() for m in (x_mask, y_mask))
                prior = beta_binomial_prior(
                    x_lengths, y_lengths, t_x=x_mask.size(2), t_y=y_mask.size(2)
                )
                neg_cent = neg_cent + self.prior * prior
        return maximum_path(neg_cent, y_mask.transpose(1, 2) * x_mask).unsqueeze(1)


def _log_likelihood(z_p: Tensor, m_p: Tensor, logs_p: Tensor) -> Tensor:
    """Compute log N(z_p; m_p, exp(logs_p)) of each frame and token, the square multiplied out.

    Args:
        z_p: [B, C, T_y].
        m_p: [B, C, T_x].
        logs_p: [B, C, T_x].

    Returns:
        [B, T_y, T_x].
    """
    precision = torch.exp(-2 * logs_p)
    log_norm = -0.5 * math.log(2 * math.pi) - logs_p
    constant = torch.sum(log_norm - 0.5 * m_p.square() * precision, 1)
    with full_precision():
        quadratic = torch.matmul(-0.5 * z_p.square().transpose(1, 2), precision)
        linear = torch.matmul(z_p.transpose(1, 2), m_p * precision)
    return quadratic + linear + constant.unsqueeze(1)


def lay_out(attn: Tensor, statistics: Tensor) -> Tensor:
    """Give each frame the statistics of its token, in at least fp32, and none to the padding.

    Args:
        attn: [B, 1, T_y, T_x], one 1 in each frame that is no padding.
        statistics: [B, C, T_x].

    Returns:
        [B, C, T_y].
    """
    path = attn.squeeze(1)
    statistics = widen(statistics)
    if statistics.requires_grad and torch.is_grad_enabled():
        return _LaidOut.apply(path, statistics)
    return _taken(path, statistics)


def _taken(path: Tensor, statistics: Tensor) -> Tensor:
    """Take the statistics of each frame's token: [B, T_y, T_x], [B, C, T_x] -> [B, C, T_y]."""
    found, token = path.max(2)  # [B, T_y]
    taken = statistics.gather(2, token.unsqueeze(1).expand(-1, statistics.size(1), -1))
    return taken.masked_fill((found == 0).unsqueeze(1), 0.0)


class _LaidOut(torch.autograd.Function):
    """`_taken`, whose backward pass adds up in a fixed order, as a gather's own on CUDA does not.

    The sum over a token's frames is a product with the path, in full fp32.
    """

    @staticmethod
    def forward(ctx: Any, path: Tensor, statistics: Tensor) -> Tensor:
        """Return the statistics of each frame's token."""
        ctx.save_for_backward(path)
        return _taken(path, statistics)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        """Return the sum of the gradients of each token's frames, [B, C, T_x]."""
        (path,) = ctx.saved_tensors
        with full_precision():
            return None, torch.matmul(grad, path.to(grad.dtype))
