"""Files of one network's weights, as published and as we export them.

G_*.pth, D_*.pth, DUR_*.pth, WD_*.pth are the reference's: a torch pickle of `model` (a state dict),
`optimizer` (AdamW's state by number), `learning_rate` and `iteration` (the epoch's number, from 1).
G_*_release.pth is its compressed form: without the posterior encoder and the optimizer, and perhaps
in half precision. G_*.safetensors and
so on hold the state dict alone, with the two numbers in their metadata and the optimizer's state by
name in G_*.optimizer.safetensors beside. Either comes from strangers: nothing but tensors and plain
numbers is ever unpickled.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainable.learning.optimizer import Moments
from trainable.networks.registry import GENERATOR, networks
from trainable.run.tensor_files import load_tensors, utf_8_name

OPTIMIZER = ".optimizer.safetensors"
DESCRIPTION = "config.json"  # beside them, of the reference's layout: names the speakers
ADAMW = ("step", "exp_avg", "exp_avg_sq")
WEIGHTS = re.compile(r"\.(pth|pt|ckpt|safetensors)$", re.IGNORECASE)
CALLED = "which is G_<step>.pth, such as G_0.pth (likewise D_, DUR_, WD_ and .safetensors)"
LEAVE = "train.skip_optimizer: true takes the weights alone"


@dataclass(frozen=True)
class Published:
    """One network's weights, and how far they were trained.

    Attributes:
        weights: its state dict, parameters in the order of the network.
        moments: AdamW's state of each parameter; None if the file has none.
        learning_rate: learning rate of the next step.
        epoch: epochs done.
    """

    weights: dict[str, Tensor]
    moments: Moments | None = None
    learning_rate: float | None = None
    epoch: int = 0


def prefixes() -> dict[str, str]:
    """Return the beginning of each network's file name: network -> prefix."""
    return {declared.name: declared.prefix for declared in networks()}


def newest(names: Iterable[str]) -> dict[str, str]:
    """Return each network's file with the highest number; .pth before .safetensors.

    Args:
        names: names of the files of a folder.

    Returns:
        Network -> name of its file.
    """
    network_of = {prefix: name for name, prefix in prefixes().items()}
    found: dict[str, tuple[int, bool, bool, str]] = {}
    for file in names:
        match = _named(file)
        if match:
            name = network_of[match["prefix"]]
            # of equal numbers the whole file wins, then .pth, which the reference trainer wrote
            rank = int(match["step"]), not match["release"], match["form"] == "pth", file
            found[name] = max(found.get(name, rank), rank)
    return {name: file for name, (*_, file) in found.items()}


def _named(file: str) -> re.Match[str] | None:
    """Return the parts of the name of a published file; None if it is none's name."""
    any_prefix = "|".join(prefixes().values())
    return re.fullmatch(
        rf"(?P<prefix>{any_prefix})_(?P<step>\d+)(?P<release>_release)?\.(?P<form>pth|safetensors)",
        file,
    )


def misnamed(names: Iterable[str]) -> list[str]:
    """Return the files that begin and end as a network's, with names that are not read."""
    any_prefix = "|".join(prefixes().values())
    looks_so = re.compile(rf"({any_prefix})[_.\s].*", re.IGNORECASE)
    return [
        name
        for name in sorted(names)
        if WEIGHTS.search(name) and looks_so.fullmatch(name)
        if not (_named(name) or name.endswith(OPTIMIZER))
    ]


def named_step(names: Iterable[str]) -> int:
    """Return the step that the name of the generator's file tells; 0 if none does."""
    match = _named(newest(names).get(GENERATOR, ""))
    return int(match["step"]) if match else 0


def needed(names: Iterable[str]) -> list[str]:
    """Return the files of `newest`, with the optimizers' files and the description beside them."""
    present = set(names)
    files = list(newest(present).values())
    beside = [
        file.replace(".safetensors", OPTIMIZER) for file in files if file.endswith(".safetensors")
    ]
    beside += [DESCRIPTION] if files else []
    return files + [file for file in beside if file in present]


def read_published(path: Path, buffers: Collection[str] = (), optimizer: bool = False) -> Published:
    """Read a file.

    Args:
        path: local file of either format.
        buffers: entries of the network's state dict that are no parameters.
        optimizer: read the optimizer's state too, if there is one.

    Raises:
        ValueError: names the file, and what is wrong with it.
    """
    read = _read_safetensors if path.suffix == ".safetensors" else _read_pth
    return read(path, buffers, optimizer)


def _read_pth(path: Path, buffers: Collection[str], optimizer: bool) -> Published:
    content = load_tensors(path)
    weights = content.get("model") if isinstance(content, dict) else None
    if not _is_state_dict(weights):
        raise ValueError(f"{path.name} is refused: it has no key `model` with a network's tensors")

    state = content.get("optimizer")
    number = content.get("iteration")
    epoch = max(number - 1, 0) if isinstance(number, int) else 0
    if not (state and optimizer):
        return Published(weights, epoch=epoch)

    parameters = [key for key in weights if key not in buffers]
    moments, rate = _by_name(state, parameters, path)
    return Published(weights, moments, rate, epoch)


def _is_state_dict(weights: Any) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(weights, dict) and all(isinstance(t, Tensor) for t in weights.values())


def _by_name(state: Any, names: list[str], path: Path) -> tuple[Moments, float]:
    """Return an optimizer's state by parameter, and its learning rate.

    Args:
        state: AdamW's state dict; it has numbers, in the network's order.
        names: parameters of the network.
        path: file, for messages.

    Raises:
        ValueError: it is not AdamW's, or it is not clear which number is whose.
    """
    try:
        # in use, with all decay; `learning_rate` of the file is what the run began with
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
            f"{path.name} is refused: its optimizer has {len(numbers)} parameters, its network "
            f"{len(names)}, so that it is not clear which belongs to which (its publisher may have "
            f"frozen some); {LEAVE}"
        )
    return {name: values.get(i, {}) for i, name in zip(numbers, names, strict=True)}, rate


def _read_safetensors(path: Path, buffers: Collection[str], optimizer: bool) -> Published:
    weights, metadata = _tensors(path)
    moments: Moments | None = None
    beside = path.with_suffix(OPTIMIZER)
    if optimizer and beside.exists():
        parameters = [key for key in weights if key not in buffers]
        moments = _read_moments(beside, parameters, path)

    try:
        rate = metadata.get("learning_rate")
        learning_rate = None if rate is None else float(rate)
        epoch = int(metadata.get("epoch", 0))
    except ValueError as error:
        raise ValueError(f"{path.name} is refused: its metadata is damaged ({error})") from error
    return Published(weights, moments, learning_rate, epoch)


def _read_moments(path: Path, parameters: list[str], weights: Path) -> Moments:
    """Read the optimizer's state of these parameters; an entry is whole, or empty.

    Args:
        path: file of the optimizer's state.
        parameters: names of the network's parameters.
        weights: file of the network's weights, for messages.

    Raises:
        ValueError: it is of other parameters, or of another optimizer.
    """
    moments: Moments = {key: {} for key in parameters}
    for key, value in _tensors(path)[0].items():
        name, _, kind = key.rpartition(".")
        if name not in moments or kind not in ADAMW:
            raise ValueError(
                f"{path.name} is refused: {key} is of no parameter of {weights.name}; {LEAVE}"
            )
        moments[name][kind] = value

    partial = [name for name, entry in moments.items() if len(entry) not in (0, len(ADAMW))]
    if partial:
        raise ValueError(
            f"{path.name} is refused: {partial[0]} has not all of {', '.join(ADAMW)}; {LEAVE}"
        )
    return moments


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, and its metadata."""
    try:
        with utf_8_name(path) as name, safe_open(name, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} is refused: it is truncated, damaged or no safetensors file ({error})"
        ) from error


def write_pth(path: Path, published: Published, adamw: Mapping[str, Any]) -> None:
    """Write the reference's format.

    Args:
        path: new file.
        published: what to write.
        adamw: hyper-parameters of AdamW, for `optimizer`.
    """
    content = {
        "model": published.weights,
        "iteration": published.epoch + 1,
        "optimizer": _optimizer_of(published, adamw),
        "learning_rate": published.learning_rate,
    }
    torch.save(content, path)


def _optimizer_of(published: Published, adamw: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return AdamW's state dict, as torch has it: by number; None without one."""
    moments = published.moments
    if moments is None:
        return None
    names = [name for name in published.weights if name in moments]
    state = {i: moments[name] for i, name in enumerate(names) if moments[name]}
    rate = published.learning_rate
    # schedulers of torch ask for initial_lr when they resume
    group = {**adamw, "lr": rate, "initial_lr": rate, "params": list(range(len(names)))}
    return {"state": state, "param_groups": [group]}


def write_safetensors(path: Path, published: Published) -> None:
    """Write the weights, and beside them the optimizer's state by name if there is one."""
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
