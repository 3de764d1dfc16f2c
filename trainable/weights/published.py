"""Files of one network's weights, as published and as we export them.

G_*.pth, D_*.pth, DUR_*.pth, WD_*.pth are the reference's: a torch pickle of `model` (a state dict),
`optimizer` (AdamW's state by number), `learning_rate` and `iteration` (epochs). G_*.safetensors and
its like hold the state dict alone, with the two numbers in their metadata and the optimizer's state
by name in G_*.optimizer.safetensors beside. Either comes from strangers: nothing but tensors and
plain numbers is ever unpickled.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainable.learning.optimizer import Moments
from trainable.run.tensor_files import load_tensors

PREFIXES = {"g": "G", "d": "D", "dur": "DUR", "wd": "WD"}  # network -> beginning of its file's name
NETWORKS = {prefix: name for name, prefix in PREFIXES.items()}
OPTIMIZER = ".optimizer.safetensors"
ADAMW = ("step", "exp_avg", "exp_avg_sq")
LEAVE = "train.skip_optimizer: true takes the weights alone"


@dataclass(frozen=True)
class Published:
    """One network's weights, and how far their training was.

    Attributes:
        weights: its state dict, parameters in the order of the network.
        moments: AdamW's state of each parameter; None where the file has none.
        learning_rate: of the next step.
        epoch: epochs done.
    """

    weights: dict[str, Tensor]
    moments: Moments | None = None
    learning_rate: float | None = None
    epoch: int = 0


def newest(names: Iterable[str]) -> dict[str, str]:
    """Network -> name of its file with the highest number, out of the names of a folder; .pth before .safetensors."""
    found: dict[str, tuple[int, bool, str]] = {}
    for file in names:
        match = re.fullmatch(rf"({'|'.join(NETWORKS)})_(\d+)\.(pth|safetensors)", file)
        if match:
            name, rank = NETWORKS[match[1]], (int(match[2]), match[3] == "pth", file)
            found[name] = max(found.get(name, rank), rank)
    return {name: file for name, (_, _, file) in found.items()}


def needed(names: Iterable[str]) -> list[str]:
    """The files of `newest`, with the optimizers' beside them."""
    present = set(names)
    files = list(newest(present).values())
    beside = [
        file.replace(".safetensors", OPTIMIZER) for file in files if file.endswith(".safetensors")
    ]
    return files + [file for file in beside if file in present]


def read_published(path: Path, buffers: Collection[str] = (), optimizer: bool = False) -> Published:
    """Read a file.

    Args:
        path: of a local file of either format.
        buffers: entries of the network's state dict that are no parameters.
        optimizer: read the optimizer's state too, if there is one.

    Raises:
        ValueError: names the file, and what is wrong with it.
    """
    return (_read_safetensors if path.suffix == ".safetensors" else _read_pth)(
        path, buffers, optimizer
    )


def _read_pth(path: Path, buffers: Collection[str], optimizer: bool) -> Published:
    content = load_tensors(path)
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise ValueError(f"{path.name} is refused: it has no key `model` with a network's tensors")
    state, epoch = content.get("optimizer"), content.get("iteration")
    epoch = epoch if isinstance(epoch, int) else 0
    if not (state and optimizer):
        return Published(weights, epoch=epoch)
    moments, rate = _by_name(state, [key for key in weights if key not in buffers], path)
    return Published(weights, moments, rate, epoch)


def _by_name(state: Any, names: list[str], path: Path) -> tuple[Moments, float]:
    """An optimizer's state by parameter, and its learning rate; the file has numbers, in the network's order."""
    try:
        rate = float(state["param_groups"][0]["lr"])
        numbers = [i for group in state["param_groups"] for i in group["params"]]
        values = {
            i: {key: torch.as_tensor(entry[key], dtype=torch.float32) for key in ADAMW}
            for i, entry in state["state"].items()
        }
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path.name} is refused: its optimizer is not AdamW's ({error!r}); {LEAVE}"
        ) from error
    if len(numbers) != len(names):
        raise ValueError(
            f"{path.name} is refused: its optimizer has {len(numbers)} parameters, its network {len(names)}: which is "
            f"whose cannot be told (its publisher may have frozen some); {LEAVE}"
        )
    return {name: values.get(i, {}) for i, name in zip(numbers, names, strict=True)}, rate


def _read_safetensors(path: Path, buffers: Collection[str], optimizer: bool) -> Published:
    weights, metadata = _tensors(path)
    moments: Moments | None = None
    beside = path.with_suffix(OPTIMIZER)
    if optimizer and beside.exists():
        moments = {key: {} for key in weights if key not in buffers}
        for key, value in _tensors(beside)[0].items():
            name, _, kind = key.rpartition(".")
            if name not in moments or kind not in ADAMW:
                raise ValueError(
                    f"{beside.name} is refused: {key} is of no parameter of {path.name}; {LEAVE}"
                )
            moments[name][kind] = value
        partial = [name for name, entry in moments.items() if len(entry) not in (0, len(ADAMW))]
        if partial:
            raise ValueError(
                f"{beside.name} is refused: {partial[0]} has not all of {', '.join(ADAMW)}; {LEAVE}"
            )
    try:
        rate = metadata.get("learning_rate")
        return Published(
            weights, moments, None if rate is None else float(rate), int(metadata.get("epoch", 0))
        )
    except ValueError as error:
        raise ValueError(f"{path.name} is refused: its metadata is damaged ({error})") from error


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} is refused: it is truncated, damaged or no safetensors file ({error})"
        ) from error


def write_pth(path: Path, published: Published, adamw: Mapping[str, Any]) -> None:
    """Write the reference's format.

    Args:
        path: of the new file.
        published: what to write.
        adamw: hyper-parameters of AdamW, for `optimizer`.
    """
    names = [name for name in published.weights if name in (published.moments or {})]
    rate = published.learning_rate
    optimizer = (
        {
            "state": {
                i: published.moments[name]
                for i, name in enumerate(names)
                if published.moments[name]
            },
            "param_groups": [
                {**adamw, "lr": rate, "initial_lr": rate, "params": list(range(len(names)))}
            ],
        }
        if published.moments is not None
        else None
    )
    content = {
        "model": published.weights,
        "iteration": published.epoch,
        "optimizer": optimizer,
        "learning_rate": rate,
    }
    torch.save(content, path)


def write_safetensors(path: Path, published: Published) -> None:
    """Write the weights, and beside them the optimizer's state by name where there is one."""
    metadata = {"epoch": str(published.epoch), "format": "pt"}
    if published.learning_rate is not None:
        metadata["learning_rate"] = repr(published.learning_rate)
    save_file(published.weights, path, metadata)
    if published.moments is not None:
        flat = {
            f"{name}.{kind}": t
            for name, entry in published.moments.items()
            for kind, t in entry.items()
        }
        save_file(flat, path.with_suffix(OPTIMIZER))
