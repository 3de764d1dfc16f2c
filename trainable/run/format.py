"""The format of a run's checkpoints: names and schema. It needs no torch, so that listing runs is fast.

<network>.safetensors   weights of each network: g, d, wd and perhaps dur
ema.safetensors         the generator's averaged weights, with train.ema_decay
training.pt             optimizers by parameter, learning rates, scalers, exponents; loads with
                        weights_only
state.json              position, changes of the plan, steps passed over, scores, validations,
                        manifest digest, versions
config.yaml             the run's resolved configuration
checksums.json          sha256 of every other file; written last: a folder without it is not a
                        checkpoint
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from data.plan.epoch_plan import Position
from data.plan.history import History, change_of
from trainable.learning.judgement import Spans, Validation

NAME = re.compile(r"checkpoint_(\d+)")
FORMAT = 2
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


def checkpoint_name(step: int) -> str:
    """Of the checkpoint after `step` global steps, below the run's folder."""
    return f"checkpoint_{step:09d}"


def step_of(uri: str) -> int:
    """The step that a checkpoint's name tells."""
    found = NAME.fullmatch(uri.rpartition("/")[2])
    assert found is not None, uri
    return int(found[1])


def read_info(folder: Path) -> CheckpointInfo:
    """Verify a checkpoint's files and read what it says of itself.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is unknown.
    """
    try:
        sums = json.loads((folder / "checksums.json").read_text())
        strange = [name for name in sums if not KNOWN.fullmatch(name)]
        damaged = (
            []
            if strange
            else [name for name, digest in sums.items() if _sha256(folder / name) != digest]
        )
    except (FileNotFoundError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} is no complete checkpoint: {error}") from error
    if strange:
        raise CheckpointError(
            f"{folder}/checksums.json lists {', '.join(strange)}: no file of a checkpoint"
        )
    if damaged:
        raise CheckpointError(
            f"{folder}: {', '.join(damaged)} is damaged (its sha256 is not that of checksums.json)"
        )
    if missing := REQUIRED - sums.keys():
        raise CheckpointError(
            f"{folder} is no complete checkpoint: checksums.json lacks {', '.join(sorted(missing))}"
        )
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
