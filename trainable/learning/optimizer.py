"""What is optimised and how: AdamW, learning rates, gradient norms, frozen parameters."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from data.plan.epoch_plan import Position
from data.text.languages import LANGUAGES
from trainable.config import TrainConfig

# parameter -> step, exp_avg, exp_avg_sq; empty before its first update
Moments = dict[str, dict[str, Tensor]]


def projections() -> dict[str, str]:
    """Return what `train.freeze` calls the projections of BERT features, and their patterns."""
    return {
        language.freeze_name: f"g.enc_p.{language.projection}.*" for language in LANGUAGES.values()
    }


def build_optimizer(net: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) over what is not frozen."""
    return torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad],
        lr=train.learning_rate,
        betas=train.betas,
        eps=train.eps,
        weight_decay=train.weight_decay,
        fused=True,
    )


def moments(net: nn.Module, optimizer: torch.optim.Optimizer) -> Moments:
    """Return the optimizer's state for all parameters of `net`, by name, in their order."""
    return {name: dict(optimizer.state.get(p, {})) for name, p in net.named_parameters()}


def load_moments(
    net: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Restore what `moments` returned; the hyper-parameters stay those of the configuration.

    By name, not by number, since a parameter may be frozen or freed between two starts of a run.
    """
    # AdamW numbers the parameters that it was given: those that are not frozen
    own = [name for name, p in net.named_parameters() if p.requires_grad]
    known = {i: dict(state[name]) for i, name in enumerate(own) if state.get(name)}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": known, "param_groups": groups})


def learning_rate(train: TrainConfig, position: Position, base: float | None = None) -> float:
    """Return the learning rate of the step at a position.

    It is a function of the position, so that no scheduler has to be saved.

    Args:
        train: warm-up and decay.
        position: global steps done.
        base: rate at step 0, before warm-up; None: train.learning_rate.
    """
    start = train.learning_rate if base is None else base
    warmup = min(1.0, (position.step + 1) / train.warmup_steps) if train.warmup_steps else 1.0
    return start * warmup * _decay(train, position)


def base_rate(train: TrainConfig, position: Position, rate: float) -> float:
    """Return the rate at step 0 from which the decay leads to a rate at a position."""
    return rate / _decay(train, position)


def _decay(train: TrainConfig, position: Position) -> float:
    """Return the factor by which the learning rate has decayed at a position."""
    return train.lr_decay ** (position.epoch if train.lr_decay_by == "epoch" else position.step)


@torch.no_grad()
def grad_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the L2 norm of all gradients of the parameters that have one, without a host sync.

    The optimizer's kernel clips what is too long.

    Returns:
        [] on their device; in fp32, or in double if they are.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)
    return torch.stack(torch._foreach_norm(gradients, 2, dtype=dtype)).norm()


def freeze(nets: Mapping[str, nn.Module], names: tuple[str, ...]) -> None:
    """Exclude parameters from the training, as `train.freeze` names them.

    Args:
        nets: name -> network.
        names: names of `projections`, or patterns (with * and ?) over `<network>.<parameter>`.

    Raises:
        ValueError: a name matches nothing, or a network would have nothing left to train.
    """
    patterns = projections()
    parameters = {
        f"{net}.{key}": p for net, module in nets.items() for key, p in module.named_parameters()
    }
    for name in names:
        pattern = patterns.get(name, name)
        found = [p for key, p in parameters.items() if fnmatchcase(key, pattern)]
        if not found:
            raise ValueError(
                f"train.freeze: {name!r} names no parameter: give {', '.join(patterns)} or a "
                f"pattern such as g.dec.* (networks here: {', '.join(nets)})"
            )
        for p in found:
            p.requires_grad_(False)

    for net, module in nets.items():
        if not any(p.requires_grad for p in module.parameters()):
            raise ValueError(
                f"train.freeze leaves nothing of network {net} to train: "
                "name fewer of its parameters"
            )
