"""One checkpoint: a folder with everything needed to continue, safe to load and checked before use.

trainable/run/format.py lists its files and states the contract.

Saving has two halves: `take_snapshot` copies the state to host memory, which the training waits
for, and `write_snapshot` serialises, hashes and writes it, in any thread.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from trainable.distributed.wrapping import unwrapped
from trainable.learning.state import TrainState
from trainable.networks.registry import AVERAGED, GENERATOR
from trainable.run.format import (
    CHECKSUMS,
    CONFIG,
    FORMAT,
    STATE,
    TRAINING,
    CheckpointError,
    CheckpointInfo,
    read_info,
    weights_name,
)
from trainable.run.tensor_files import load_safetensors, load_tensors, write_safetensors


class HostCopy:
    """Copies nested dicts of tensors to host memory, into the same buffers every time.

    Fresh memory would cost more than the copy itself: its pages are mapped one by one, and pinned
    ones by the driver.
    """

    def __init__(self) -> None:
        self.buffers: dict[tuple, Tensor] = {}
        self.devices: set[torch.device] = set()  # that the last call copied from

    def __call__(self, value: Any) -> Any:
        """Return the copy; it is overwritten by the next call."""
        self.devices.clear()
        copied = self._copy(value, ())
        # The copies from a GPU are queued: the training must not change what is not copied yet. Not
        # where all lies on the CPU: to ask for a stream takes memory of the first GPU.
        for device in self.devices:
            torch.cuda.current_stream(device).synchronize()
        return copied

    def _copy(self, value: Any, path: tuple) -> Any:
        if isinstance(value, Mapping):
            return {key: self._copy(v, (*path, key)) for key, v in value.items()}
        if not isinstance(value, Tensor):
            return copy.deepcopy(value)

        if value.is_cuda:
            self.devices.add(value.device)
        buffer = self.buffers.get(path)
        if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
            buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
            self.buffers[path] = buffer
        return buffer.copy_(value.detach(), non_blocking=True)


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, in host memory.

    Attributes:
        weights: network -> tensors.
        training: the rest of the state.
        info: what the checkpoint tells about itself.
        config_yaml: resolved configuration of the run.
    """

    weights: dict[str, dict[str, Tensor]]
    training: dict[str, Any]
    info: CheckpointInfo
    config_yaml: str


def take_snapshot(
    state: TrainState, info: CheckpointInfo, config_yaml: str, host: HostCopy
) -> Snapshot:
    """Copy the state; the snapshot holds until `host` copies again."""
    weights = {name: unwrapped(net).state_dict() for name, net in state.nets.items()}
    if state.averaged is not None:
        weights[AVERAGED] = state.averaged.state_dict()
    copied = host({"weights": weights, "training": state.state_dict()})
    # never changed, so never copied
    return Snapshot(
        {**state.unused.weights, **copied["weights"]}, copied["training"], info, config_yaml
    )


class _Hashed:
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.file.write(content)
        return len(content)

    def flush(self) -> None:
        self.file.flush()


def write_snapshot(
    snapshot: Snapshot, create: Callable[[str], AbstractContextManager[IO[bytes]]]
) -> None:
    """Write a checkpoint's files, the one that makes it valid last.

    Args:
        snapshot: what the checkpoint holds.
        create: opens a file of a name for writing.
    """
    state = json.dumps({"format": FORMAT, **asdict(snapshot.info)}, indent=1, ensure_ascii=False)
    files: dict[str, Callable[[Any], Any]] = {
        weights_name(name): partial(write_safetensors, tensors)
        for name, tensors in snapshot.weights.items()
    }
    # torch's own format, as optimizers hold nested dicts; it is read with weights_only
    files[TRAINING] = partial(torch.save, snapshot.training)
    files[STATE] = lambda file: file.write(state.encode())
    files[CONFIG] = lambda file: file.write(snapshot.config_yaml.encode())

    sums = {}
    for name, write in files.items():
        with create(name) as file:
            hashed = _Hashed(file)
            write(hashed)
        sums[name] = hashed.digest.hexdigest()
    with create(CHECKSUMS) as file:
        file.write(json.dumps(sums, indent=1).encode())


def save_checkpoint(
    folder: Path, state: TrainState, info: CheckpointInfo, config_yaml: str
) -> None:
    """Write a checkpoint into an empty local folder."""
    snapshot = take_snapshot(state, info, config_yaml, HostCopy())
    write_snapshot(snapshot, lambda name: (folder / name).open("wb"))


def load_checkpoint(folder: Path, state: TrainState) -> CheckpointInfo:
    """Verify a checkpoint and restore `state` from it.

    Raises:
        CheckpointError: it is damaged or of another architecture.
    """
    info = read_info(folder)
    # weights first: a wrong architecture is found by them, with the tensors' names
    for name, net in state.nets.items():
        load_weights(folder, name, unwrapped(net))

    try:
        training = load_tensors(folder / TRAINING)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    state.load_state_dict(training)
    state.unused.weights = {
        name: load_safetensors(weights_file(folder, name))
        for name in training["moments"]
        if name not in state.nets
    }

    if state.averaged is not None:
        averaged = folder / weights_name(AVERAGED)
        if not averaged.exists():  # a run may begin to average later
            averaged = folder / weights_name(GENERATOR)
        state.averaged.load_state_dict(load_safetensors(averaged))

    state.position = info.position
    state.passed_over = info.passed_over
    state.validations = info.validations
    return info


def weights_file(folder: Path, name: str) -> Path:
    """Return the file of a network's weights, or of the generator's averaged ones, `ema`.

    Raises:
        CheckpointError: there is none.
    """
    path = folder / weights_name(name)
    if path.exists():
        return path
    if name == AVERAGED:
        raise CheckpointError(
            f"{folder} holds no averaged weights: it was trained with train.ema_decay 0"
        )
    raise without_network(str(folder), name)


def without_network(checkpoint: str, name: str) -> CheckpointError:
    """Return the error of a checkpoint that lacks a network.

    Args:
        checkpoint: path or URI of the checkpoint.
        name: name of the network.
    """
    return CheckpointError(
        f"{checkpoint} holds no network `{name}`: it was trained with other model.* settings"
    )


def load_weights(folder: Path, name: str, net: nn.Module) -> None:
    """Load the weights of one network, or the generator's averaged ones, `ema`.

    Raises:
        CheckpointError: names the tensors that do not fit.
    """
    path = weights_file(folder, name)
    weights = load_safetensors(path)
    check_architecture(str(path), weights, net)
    net.load_state_dict(weights)


def check_architecture(path: str, weights: Mapping[str, Tensor], net: nn.Module) -> None:
    """Refuse weights of another architecture.

    Args:
        path: path or URI of their file, for the message.
        weights: tensors of the file; on the meta device they have shapes alone.
        net: the network.

    Raises:
        CheckpointError: names the tensors that do not fit.
    """
    if wrong := mismatches(weights, net.state_dict()):
        raise CheckpointError(
            f"{path} is of another architecture ({len(wrong)} tensors differ): "
            f"{'; '.join(wrong[:3])}. "
            f"Set model.* as in the checkpoint's {CONFIG}, or choose another run.name"
        )


def mismatches(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Return how the tensors of a file differ from a network's.

    Some are missing, some unexpected, some of another shape.

    Args:
        weights: tensors of the file.
        own: tensors of the network.
    """
    wrong = [f"{key} is missing" for key in own if key not in weights]
    wrong += [f"{key} is not of this network" for key in weights if key not in own]
    wrong += [
        f"{key} has shape {list(weights[key].shape)}, expected {list(t.shape)}"
        for key, t in own.items()
        if key in weights and weights[key].shape != t.shape
    ]
    return wrong
