"""One checkpoint: a folder with everything needed to continue, safe to load and checked before it is used.

g.safetensors d.safetensors dur.safetensors wd.safetensors     weights
ema.safetensors    the generator's averaged weights, with train.ema_decay
training.pt        optimizers by parameter, learning rates, scalers, exponents (loads with weights_only)
state.json         position, changes of the plan, steps passed over, scores, validations, manifest digest, versions
config.yaml        the run's resolved configuration
checksums.json     sha256 of every other file; written last, so that a folder without it is not a checkpoint

Saving has two halves: `take_snapshot` copies the state to host memory, which the training waits for, and
`write_snapshot` serialises, hashes and writes it, in any thread.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data.epoch_plan import Position
from data.plan_history import History, change_of
from trainable.judgement import Validation
from trainable.published import load_tensors
from trainable.reduction import unwrapped
from trainable.state import Spans, TrainState

FORMAT = 2
DTYPES = {  # their names in safetensors
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
REQUIRED = {"training.pt", "state.json", "config.yaml"}
KNOWN = re.compile(r"[a-z]+\.safetensors|training\.pt|state\.json|config\.yaml")


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
        scores: of a validation at this step; empty without one.
        passed_over: (first, last) steps that roll-backs have passed over.
        history: changes of the plan of the data; none in checkpoints of older code.
        validations: those of the run so far.
    """

    position: Position
    manifest: str
    code_version: str
    versions: dict[str, str]
    speakers: dict[str, int]
    world_size: int
    scores: dict[str, float] = field(default_factory=dict)
    passed_over: Spans = ()
    history: History = ()
    validations: tuple[Validation, ...] = ()


class HostCopy:
    """Copies nested dicts of tensors to host memory, into the same buffers every time.

    Fresh memory would cost more than the copy itself: its pages are mapped one by one, and pinned ones by the driver.
    """

    def __init__(self) -> None:
        self.buffers: dict[tuple, Tensor] = {}

    def __call__(self, value: Any) -> Any:
        """The copy; it is overwritten by the next call."""
        copied = self._copy(value, ())
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        return copied

    def _copy(self, value: Any, path: tuple) -> Any:
        if isinstance(value, Mapping):
            return {key: self._copy(v, (*path, key)) for key, v in value.items()}
        if not isinstance(value, Tensor):
            return copy.deepcopy(value)
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
        info: what the checkpoint says of itself.
        config_yaml: the run's resolved configuration.
    """

    weights: dict[str, dict[str, Tensor]]
    training: dict[str, Any]
    info: CheckpointInfo
    config_yaml: str


def take_snapshot(state: TrainState, info: CheckpointInfo, config_yaml: str, host: HostCopy) -> Snapshot:
    """Copy the state; the snapshot holds until `host` copies again."""
    weights = {name: unwrapped(net).state_dict() for name, net in state.nets.items()}
    if state.averaged is not None:
        weights["ema"] = state.averaged.state_dict()
    copied = host({"weights": weights, "training": state.state_dict()})
    return Snapshot(copied["weights"], copied["training"], info, config_yaml)


class _Hashed:
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, content: Any) -> int:
        self.digest.update(content)
        self.file.write(content)
        return len(content)

    def flush(self) -> None:
        self.file.flush()


def write_snapshot(snapshot: Snapshot, create: Callable[[str], AbstractContextManager[IO[bytes]]]) -> None:
    """Write a checkpoint's files, the one that makes it valid last.

    Args:
        snapshot: what it holds.
        create: opens a file of a name for writing.
    """
    state = json.dumps({"format": FORMAT, **asdict(snapshot.info)}, indent=1, ensure_ascii=False)
    files: dict[str, Callable[[Any], Any]] = {
        f"{name}.safetensors": partial(_write_safetensors, tensors) for name, tensors in snapshot.weights.items()
    }
    files["training.pt"] = partial(torch.save, snapshot.training)
    files["state.json"] = lambda file: file.write(state.encode())
    files["config.yaml"] = lambda file: file.write(snapshot.config_yaml.encode())
    sums = {}
    for name, write in files.items():
        with create(name) as file:
            hashed = _Hashed(file)
            write(hashed)
        sums[name] = hashed.digest.hexdigest()
    with create("checksums.json") as file:
        file.write(json.dumps(sums, indent=1).encode())


def _write_safetensors(tensors: Mapping[str, Tensor], file: _Hashed) -> None:
    """The library's own format (a header's length, the header, the bytes), without its copies that hold up Python."""
    header, end = {}, 0
    for key, t in tensors.items():
        begin, end = end, end + t.nbytes
        header[key] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for t in tensors.values():
        file.write(t.contiguous().view(-1).view(torch.uint8).numpy().data)


def save_checkpoint(folder: Path, state: TrainState, info: CheckpointInfo, config_yaml: str) -> None:
    """Write a checkpoint into an empty local folder."""
    write_snapshot(take_snapshot(state, info, config_yaml, HostCopy()), lambda name: (folder / name).open("wb"))


def read_info(folder: Path) -> CheckpointInfo:
    """Verify a checkpoint's files and read what it says of itself.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is unknown.
    """
    try:
        sums = json.loads((folder / "checksums.json").read_text())
        strange = [name for name in sums if not KNOWN.fullmatch(name)]
        damaged = [] if strange else [name for name, digest in sums.items() if _sha256(folder / name) != digest]
    except (FileNotFoundError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} is no complete checkpoint: {error}") from error
    if strange:
        raise CheckpointError(f"{folder}/checksums.json lists {', '.join(strange)}: no file of a checkpoint")
    if damaged:
        raise CheckpointError(f"{folder}: {', '.join(damaged)} is damaged (its sha256 is not that of checksums.json)")
    if missing := REQUIRED - sums.keys():
        raise CheckpointError(f"{folder} is no complete checkpoint: checksums.json lacks {', '.join(sorted(missing))}")
    return parse_info((folder / "state.json").read_bytes(), f"{folder}/state.json")


def parse_info(content: bytes, source: str) -> CheckpointInfo:
    """What a checkpoint says of itself, from its state.json.

    Raises:
        CheckpointError: the format is unknown.
    """
    try:
        raw = json.loads(content)
        if raw.pop("format") == FORMAT:
            raw["position"] = Position(**raw["position"])
            raw["passed_over"] = tuple((first, last) for first, last in raw.get("passed_over", ()))
            raw["history"] = tuple(map(change_of, raw.get("history", ())))
            raw["validations"] = tuple(Validation(**v) for v in raw.get("validations", ()))
            return CheckpointInfo(**raw)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source} is damaged: {error!r}") from error
    raise CheckpointError(f"{source} has a format that this code does not know; it reads {FORMAT}")


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
    if state.averaged is not None:  # a run may begin to average later
        path = folder / "ema.safetensors"
        state.averaged.load_state_dict(load_file(path if path.exists() else folder / "g.safetensors"))
    state.position, state.passed_over, state.validations = info.position, info.passed_over, info.validations
    return info


def weights_file(folder: Path, name: str) -> Path:
    """The file of a network's weights, or of the generator's averaged ones, `ema`.

    Raises:
        CheckpointError: there is none.
    """
    path = folder / f"{name}.safetensors"
    if path.exists():
        return path
    if name == "ema":
        raise CheckpointError(f"{folder} holds no averaged weights: it was trained with train.ema_decay 0")
    raise CheckpointError(f"{folder} holds no network `{name}`: it was trained with other model.* settings")


def load_weights(folder: Path, name: str, net: nn.Module) -> None:
    """Load the weights of one network, or the generator's averaged ones, `ema`.

    Raises:
        CheckpointError: names the tensors that do not fit.
    """
    path = weights_file(folder, name)
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
