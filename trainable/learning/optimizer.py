"""What is optimised and how: AdamW a network, its state by parameter name, learning rates, frozen parameters."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from data.plan.epoch_plan import Position
from trainable.config import TrainConfig

# parameter -> step, exp_avg, exp_avg_sq; empty before its first update
Moments = dict[str, dict[str, Tensor]]

FREEZES = {
    "zh_bert": "g.enc_p.bert_proj.*",
    "jp_bert": "g.enc_p.ja_bert_proj.*",
    "en_bert": "g.enc_p.en_bert_proj.*",
}


def build_optimizer(net: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101) over the parameters that are not frozen."""
    return torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad],
        lr=train.learning_rate,
        betas=train.betas,
        eps=train.eps,
        weight_decay=train.weight_decay,
        fused=True,
    )


def moments(net: nn.Module, optimizer: torch.optim.Optimizer) -> Moments:
    """The optimizer's state of all parameters of `net`, in their order."""
    return {name: dict(optimizer.state.get(p, {})) for name, p in net.named_parameters()}


def load_moments(
    net: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Restore what `moments` gave; the hyper-parameters stay those of the configuration.

    Names, not numbers: a parameter may be frozen or freed between two starts of a run.
    """
    own = [name for name, p in net.named_parameters() if p.requires_grad]
    known = {i: dict(state[name]) for i, name in enumerate(own) if state.get(name)}
    optimizer.load_state_dict(
        {"state": known, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def learning_rate(train: TrainConfig, position: Position, base: float | None = None) -> float:
    """The learning rate of the step at a position: a function of it, so that no scheduler has to be saved.

    Args:
        train: warm-up and decay.
        position: global steps done.
        base: what it starts from; None: train.learning_rate.
    """
    decays = position.epoch if train.lr_decay_by == "epoch" else position.step
    warmup = min(1.0, (position.step + 1) / train.warmup_steps) if train.warmup_steps else 1.0
    return (train.learning_rate if base is None else base) * warmup * train.lr_decay**decays


def freeze(nets: Mapping[str, nn.Module], names: tuple[str, ...]) -> None:
    """Take parameters out of the training, as `train.freeze` names them.

    Args:
        nets: name -> network.
        names: of FREEZES, or patterns (with * and ?) over `<network>.<parameter>`.

    Raises:
        ValueError: a name matches nothing, or a network would have nothing left to train.
    """
    for name in names:
        pattern = FREEZES.get(name, name)
        found = [
            p
            for net, module in nets.items()
            for key, p in module.named_parameters()
            if fnmatchcase(f"{net}.{key}", pattern)
        ]
        if not found:
            raise ValueError(
                f"train.freeze: {name!r} names no parameter: give {', '.join(FREEZES)} or a pattern such as g.dec.* "
                f"(networks here: {', '.join(nets)})"
            )
        for p in found:
            p.requires_grad_(False)
    for net, module in nets.items():
        if not any(p.requires_grad for p in module.parameters()):
            raise ValueError(
                f"train.freeze leaves nothing of network {net} to train: name fewer of its parameters"
            )
