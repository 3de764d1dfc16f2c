"""One checkpoint: a folder with everything needed to continue, safe to load and checked before it is used.

g.safetensors d.safetensors dur.safetensors wd.safetensors     weights
training.pt        optimizers by parameter, learning rates, scalers, exponents (loads with weights_only)
state.json         position, manifest digest, code and library versions, world size
config.yaml        the run's resolved configuration
checksums.json     sha256 of every other file; written last, so that a folder without it is not a checkpoint
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from data.epoch_plan import Position
from data.plan_history import History, change_of
from trainable.published import load_tensors
from trainable.reduction import unwrapped
from trainable.state import TrainState

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or of another architecture."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        position: global steps done.
        manifest: digest of the data that it was trained on.
        code_version: commit or version of the code that wrote it.
        versions: of python and the libraries.
        speakers: name -> row of the speaker table.
        world_size: workers when it was written.
        history: changes of the plan of the data; none in checkpoints of older code.
    """

    position: Position
    manifest: str
    code_version: str
    versions: dict[str, str]
    speakers: dict[str, int]
    world_size: int
    history: History = ()


def save_checkpoint(folder: Path, state: TrainState, info: CheckpointInfo, config_yaml: str) -> None:
    """Write a checkpoint into an empty folder."""
    for name, net in state.nets.items():
        weights = {key: t.detach().cpu().contiguous() for key, t in unwrapped(net).state_dict().items()}
        save_file(weights, folder / f"{name}.safetensors")
    torch.save(state.state_dict(), folder / "training.pt")
    (folder / "state.json").write_text(json.dumps({"format": FORMAT, **asdict(info)}, indent=1, ensure_ascii=False))
    (folder / "config.yaml").write_text(config_yaml)
    sums = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / "checksums.json").write_text(json.dumps(sums, indent=1))


def read_info(folder: Path) -> CheckpointInfo:
    """Verify a checkpoint's files and read what it says of itself.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is unknown.
    """
    try:
        sums = json.loads((folder / "checksums.json").read_text())
        damaged = [name for name, digest in sums.items() if _sha256(folder / name) != digest]
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder} is no complete checkpoint: {error}") from error
    if damaged:
        raise CheckpointError(f"{folder}: {', '.join(damaged)} is damaged (its sha256 is not that of checksums.json)")
    raw = json.loads((folder / "state.json").read_text())
    if raw.pop("format") != FORMAT:
        raise CheckpointError(f"{folder}/state.json has a format that this code does not know; it reads {FORMAT}")
    history = tuple(map(change_of, raw.get("history", ())))
    return CheckpointInfo(**raw | {"position": Position(**raw["position"]), "history": history})


def load_checkpoint(folder: Path, state: TrainState) -> CheckpointInfo:
    """Verify a checkpoint and restore `state` from it.

    Raises:
        CheckpointError: it is damaged or of another architecture.
    """
    info = read_info(folder)
    for name, net in state.nets.items():
        load_weights(folder, name, unwrapped(net))
    try:
        training = load_tensors(folder / "training.pt")
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    state.load_state_dict(training)
    state.position = info.position
    return info


def load_weights(folder: Path, name: str, net: nn.Module) -> None:
    """Load the weights of one network.

    Raises:
        CheckpointError: names the tensors that do not fit.
    """
    path = folder / f"{name}.safetensors"
    if not path.exists():
        raise CheckpointError(f"{folder} holds no network `{name}`: it was trained with other model.* settings")
    weights, own = load_file(path), net.state_dict()
    wrong = mismatches(weights, own)
    if wrong:
        raise CheckpointError(
            f"{path} is of another architecture ({len(wrong)} tensors differ): {'; '.join(wrong[:3])}. "
            "Set model.* as in the checkpoint's config.yaml, or choose another run.name"
        )
    net.load_state_dict(weights)


def mismatches(weights: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """How the tensors of a file differ from a network's: missing, unexpected, of another shape."""
    wrong = [f"{key} is missing" for key in own if key not in weights]
    wrong += [f"{key} is not of this network" for key in weights if key not in own]
    wrong += [
        f"{key} has shape {list(weights[key].shape)}, expected {list(t.shape)}"
        for key, t in own.items()
        if key in weights and weights[key].shape != t.shape
    ]
    return wrong


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
