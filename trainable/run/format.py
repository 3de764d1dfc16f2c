"""A run's folder: the names of its files, and the schema of its checkpoints.

No other module spells these names. This one needs no torch, so that listing runs is fast.

config.yaml              resolved configuration of the last start
environment.json         code version and installed packages of the last start
owner.txt                the job that was started last; an earlier one saves nothing more
status.json              whether it runs, and how it ended (heartbeat.py)
metrics.jsonl            one JSON object per global step; in an object store, which cannot append,
                         parts: metrics/<first step>.jsonl
tensorboard/             events of the training; tensorboard/eval/ those of the validations
trackers/<name>.txt      what a tracker (run.trackers) calls the run
logs/rank-<r>.log        log of each rank
logs/stuck-rank-<r>.txt  where a rank was when it hung
logs/driver.log          tracebacks of the run's failures
checkpoint_<step>/       a checkpoint after that many global steps

The files of a checkpoint:

<network>.safetensors    weights of each network
ema.safetensors          averaged weights of the generator, with train.ema_decay
training.pt              optimizers by parameter, learning rates, scalers; loads with weights_only
state.json               CheckpointInfo
config.yaml              resolved configuration of the run
checksums.json           sha256 of every other file

The contract that writers (checkpoint.py, storage.py) and readers keep:

- `checksums.json` is written last. A folder without it is no checkpoint.
- A checkpoint is never changed. It is replaced as a whole, or removed: `checksums.json` first.
- Nothing is read before `read_info` has compared all checksums.
- Files that `checksums.json` lists under other names than these are refused, never opened.
- All networks, optimizers and the position are of the same step.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.plan.epoch_plan import Position
from data.plan.history import History, change_of
from trainable.learning.judgement import Spans, Validation
from trainable.networks.registry import NAME as NETWORK_NAME

# of a run
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
OWNER = "owner.txt"
STATUS = "status.json"
METRICS = "metrics.jsonl"
METRICS_PARTS = "metrics"
TENSORBOARD = "tensorboard"
TENSORBOARD_EVAL = "tensorboard/eval"
TRACKERS = "trackers"
LOGS = "logs"
DRIVER_LOG = f"{LOGS}/driver.log"

# of a checkpoint, which has a CONFIG too
CHECKSUMS = "checksums.json"
STATE = "state.json"
TRAINING = "training.pt"

FORMAT = 2
REQUIRED = {TRAINING, STATE, CONFIG}
CHECKPOINT_NAME = re.compile(r"checkpoint_([0-9]+)")
WEIGHTS_NAME = re.compile(rf"{NETWORK_NAME.pattern}\.safetensors")


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or of another architecture."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint tells about itself: its state.json.

    Attributes:
        position: global steps done.
        manifest: digest of the data that it was trained on.
        code_version: commit or version of the code that wrote it.
        versions: versions of Python and the libraries.
        speakers: name -> row of the speaker table.
        world_size: number of workers when it was written.
        scores: scores of a validation at this step; empty without one.
        metrics: losses, norms and rates of this step (RunLog.told); empty in checkpoints of older
            code.
        passed_over: (first, last) steps that roll-backs have passed over.
        history: changes of the data's plan; empty in checkpoints of older code.
        validations: all validations of the run so far.
    """

    position: Position
    manifest: str
    code_version: str
    versions: dict[str, str]
    speakers: dict[str, int]
    world_size: int
    scores: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    passed_over: Spans = ()
    history: History = ()
    validations: tuple[Validation, ...] = ()

    @property
    def told(self) -> dict[str, float]:
        """All that is told of this step: where it stands, its metrics, its scores."""
        place = {"step": self.position.step, "epoch": self.position.epoch}
        return self.metrics | place | self.scores


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint after `step` global steps, below the run's folder."""
    return f"checkpoint_{step:09d}"


def named_step(name: str) -> int | None:
    """Return the global steps of a checkpoint of this name; None if it is none's name."""
    found = CHECKPOINT_NAME.fullmatch(name)
    # checkpoint_9 and checkpoint_0000000010 are somebody else's
    return int(found[1]) if found and checkpoint_name(int(found[1])) == name else None


def step_of(uri: str) -> int:
    """Return the global steps that a checkpoint's name tells."""
    step = named_step(uri.rpartition("/")[2])
    assert step is not None, uri
    return step


def weights_name(network: str) -> str:
    """Return the name of a network's file in a checkpoint; AVERAGED has one too."""
    return f"{network}.safetensors"


def metrics_part(label: str) -> str:
    """Return the path of a part of the metrics in an object store, below the run's folder."""
    return f"{METRICS_PARTS}/{label}.jsonl"


def tracker_name(tracker: str) -> str:
    """Return the path of the file with a tracker's name of the run, below the run's folder."""
    return f"{TRACKERS}/{tracker}.txt"


def log_name(rank: int) -> str:
    """Return the path of a rank's log, below the run's folder."""
    return f"{LOGS}/rank-{rank}.log"


def stuck_report_name(rank: int) -> str:
    """Return the path of a rank's report of a hang, below the run's folder."""
    return f"{LOGS}/stuck-rank-{rank}.txt"


def read_info(folder: Path) -> CheckpointInfo:
    """Verify a checkpoint's files and read what it tells about itself.

    Raises:
        CheckpointError: a file is missing or damaged, or the format is unknown.
    """
    try:
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        unknown = [name for name in sums if not _is_known(name)]
        # files of unknown names are not opened
        damaged = [] if unknown else _damaged(folder, sums)
    except (FileNotFoundError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder} is no complete checkpoint: {error}") from error

    if unknown:
        names = ", ".join(unknown)
        raise CheckpointError(f"{folder}/{CHECKSUMS} lists {names}: no file of a checkpoint")
    if damaged:
        names = ", ".join(damaged)
        raise CheckpointError(
            f"{folder}: {names} is damaged (its sha256 differs from that in {CHECKSUMS})"
        )
    if missing := REQUIRED - sums.keys():
        names = ", ".join(sorted(missing))
        raise CheckpointError(f"{folder} is no complete checkpoint: {CHECKSUMS} lacks {names}")

    return parse_info((folder / STATE).read_bytes(), f"{folder}/{STATE}")


def parse_info(content: bytes, source: str) -> CheckpointInfo:
    """Read what a checkpoint tells about itself, from its state.json.

    Args:
        content: bytes of the file.
        source: path or URI of the file, for messages.

    Raises:
        CheckpointError: the file is damaged, or its format is unknown.
    """
    try:
        raw = json.loads(content)
        if raw.pop("format") == FORMAT:
            return _info_of(raw)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} is damaged: {error!r}") from error
    raise CheckpointError(f"{source} has a format that this code does not know; it reads {FORMAT}")


def _info_of(raw: dict) -> CheckpointInfo:
    """Return the CheckpointInfo that `dataclasses.asdict` and JSON made `raw` of."""
    raw["position"] = Position(**raw["position"])
    # younger than the format: older checkpoints have none of these
    raw["passed_over"] = tuple((first, last) for first, last in raw.get("passed_over", ()))
    raw["history"] = tuple(map(change_of, raw.get("history", ())))
    raw["validations"] = tuple(Validation(**v) for v in raw.get("validations", ()))
    return CheckpointInfo(**raw)


def _is_known(name: str) -> bool:
    return name in REQUIRED or WEIGHTS_NAME.fullmatch(name) is not None


def _damaged(folder: Path, sums: Mapping[str, str]) -> list[str]:
    return [name for name, digest in sums.items() if _sha256(folder / name) != digest]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
