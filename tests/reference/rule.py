"""The rule that fills weights and noise of the reference numbers, so that none are stored.

Weights: `weights_rule` of manifest.json. Noise: `noise` of manifest.json.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # splitmix64's constants
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
BLOCK = 2**14  # numbers that are made at once: they stay in the processor's cache


def pseudo_random(name: str, count: int) -> NDArray[np.float64]:
    """`count` numbers in [-1, 1): splitmix64 started from the CRC of the name."""
    start = np.uint64(zlib.crc32(name.encode()) << 32)
    found = np.empty(count)
    for first in range(0, count, BLOCK):
        last = min(first + BLOCK, count)
        found[first:last] = _mixed(start, first, last)
    return found


def _mixed(start: np.uint64, first: int, last: int) -> NDArray[np.float64]:
    """Numbers `first` to `last` of those that begin at `start`."""
    # wraps around
    state = np.arange(first + 1, last + 1, dtype=np.uint64)
    state *= np.uint64(GOLDEN_GAMMA)
    state += start
    state ^= state >> np.uint64(30)
    state *= np.uint64(MIX_1)
    state ^= state >> np.uint64(27)
    state *= np.uint64(MIX_2)
    state ^= state >> np.uint64(31)
    state >>= np.uint64(11)
    return 2.0 * (state.astype(np.float64) / 2.0**53) - 1.0


def weight(name: str, shape: tuple[int, ...], salt: str) -> NDArray[np.float64]:
    """Value of one entry of a state dict."""
    u = pseudo_random(salt + name, int(np.prod(shape, dtype=np.int64))).reshape(shape)
    leaf = name.split(".")[-1]
    if leaf in {"weight_g", "original0", "gamma", "gru_rel_pos_const"} or (
        leaf == "weight" and len(shape) == 1
    ):
        return 1.0 + 0.1 * u
    if leaf in {"beta", "m", "logs", "masked_spec_embed"} or leaf.startswith("bias"):
        return 0.1 * u
    if name.endswith("emb_g.weight") or leaf.startswith("emb_rel"):
        return u
    if leaf in {"weight_u", "weight_v"} and len(shape) == 1:  # vectors of spectral norm
        return u / np.linalg.norm(u)
    return u / np.sqrt(float(np.prod(shape[1:], dtype=np.int64)))


def fill(module: nn.Module, salt: str) -> None:
    """Fills the floating entries of the module's state dict, in place."""
    values = {
        name: torch.from_numpy(np.asarray(weight(name, tuple(entry.shape), salt))).to(entry.dtype)
        for name, entry in module.state_dict().items()
        if entry.is_floating_point()
    }
    module.load_state_dict({**module.state_dict(), **values})


class Noise:
    """Replace torch.randn, torch.randn_like and torch.rand inside a `with`; note the draws.

    A normal draw is amp * sin(freq * k + phase) at flat index k; a uniform draw is constant.
    """

    def __init__(self, amp: float, freq: float, phase: float, rand: float) -> None:
        self.amp, self.freq, self.phase, self.uniform = amp, freq, phase, rand
        self.draws: list[list[Any]] = []
        self.originals: dict[str, Callable[..., Tensor]] = {}

    @classmethod
    def of(cls, constants: dict[str, Any]) -> "Noise":
        """The noise of a manifest's entry, which may say more than the constants."""
        return cls(**{key: constants[key] for key in ("amp", "freq", "phase", "rand")})

    def _normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        index = np.arange(np.prod(shape, dtype=np.int64), dtype=np.float64)
        wave = (self.amp * np.sin(self.freq * index + self.phase)).astype(np.float32)
        return torch.from_numpy(wave.reshape(shape)).to(like)

    def randn(self, *size: Any, **kwargs: Any) -> Tensor:
        like = torch.empty(*size, **kwargs)
        self.draws.append(["randn", list(like.shape)])
        return self._normal(tuple(like.shape), like)

    def randn_like(self, tensor: Tensor, **kwargs: Any) -> Tensor:
        like = torch.empty_like(tensor, **kwargs)
        self.draws.append(["randn_like", list(like.shape)])
        return self._normal(tuple(like.shape), like)

    def rand(self, *size: Any, **kwargs: Any) -> Tensor:
        like = torch.empty(*size, **kwargs)
        self.draws.append(["rand", list(like.shape)])
        return torch.full_like(like, self.uniform)

    def __enter__(self) -> "Noise":
        for name in ("randn", "randn_like", "rand"):
            self.originals[name] = getattr(torch, name)
            setattr(torch, name, getattr(self, name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, original in self.originals.items():
            setattr(torch, name, original)
