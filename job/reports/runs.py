"""The runs at a storage URI, as their folders show them; reading them needs no torch."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import yaml

from data.files import below, located, reachable, read_file
from trainable.config import CheckpointConfig
from trainable.run.format import CHECKSUMS, CONFIG, METRICS, METRICS_PARTS, checkpoint_name, step_of
from trainable.run.heartbeat import Status, read_status
from trainable.run.storage import checkpoints, names_in, ranking, scores_of

# since the last write; a worker that hangs is ended after ten minutes (train.hang_timeout_s)
RUNS_WITHIN = timedelta(minutes=15)
AT_A_TIME = 32  # runs that are read; of a store's time nearly all is waiting
DEEPEST = 64  # nested lists and sections of a config.yaml
YAML_LOADER: Any = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # eight times faster, if it is there


@dataclass(frozen=True)
class Run:
    """A run as its folder shows it.

    Attributes:
        name: name of the folder.
        step: global steps of its newest checkpoint; 0 without one.
        goal: train.max_steps.
        best: the best score among its checkpoints; None without one.
        metric: the metric of that score.
        written: time of the last write.
        status: what its driver has told last; None if it has told nothing, as older code.
        newest: folder or URI of its newest checkpoint; None without one.
    """

    name: str
    step: int
    goal: int
    best: float | None
    metric: str
    written: datetime
    status: Status | None = None
    newest: str | None = None

    def state(self, now: datetime) -> str:
        """Return `finished`, `running`, `stopped`, `failed`, or `lost` if no driver answers.

        Of a run of older code, `running` if it wrote lately, or else `stopped`.
        """
        if self.step >= self.goal:
            return "finished"
        if self.status is not None:
            return self.status.seen(now)
        return "running" if now - self.written < RUNS_WITHIN else "stopped"


def runs(storage: str) -> list[Run]:
    """Return all runs in a folder or URI, the last written first.

    Raises:
        ValueError: it holds none.
        OSError: it cannot be read.
    """
    return runs_and_others(storage)[0]


def runs_and_others(storage: str) -> tuple[list[Run], dict[str, str]]:
    """Return all runs in a folder or URI, and what is wrong with folders that are none.

    Returns:
        The runs, the last written first; and name -> what is wrong, for each other folder that has
        a config.yaml.

    Raises:
        ValueError: it holds no run.
        OSError: it cannot be read.
    """
    with reachable(storage):
        fs, root = located(storage)
        fs.invalidate_cache()
        names = names_in(fs, root)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        told = dict(zip(names, pool.map(partial(_run_or_problem, storage), names), strict=True))

    found = [run for run in told.values() if isinstance(run, Run)]
    wrong = {name: problem for name, problem in told.items() if isinstance(problem, str)}
    if not found:
        raise ValueError(
            f"{storage} holds no runs, which are folders with a {CONFIG}: give the value of "
            "run.storage" + "".join(f"; {each}" for each in wrong.values())
        )
    return sorted(found, key=lambda run: run.written, reverse=True), wrong


def _run_or_problem(storage: str, name: str) -> Run | str | None:
    """Return the run in a folder, or what is wrong with it; None if it has no config.yaml."""
    folder = below(storage, name)
    try:
        config = _read_yaml(below(folder, CONFIG))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    try:
        return describe(folder, config)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())


def describe(folder: str, config: Mapping[str, Any]) -> Run:
    """Return what the folder of a run shows.

    Args:
        folder: folder or URI of the run.
        config: content of its config.yaml.

    Raises:
        ValueError: its config.yaml is not a run's.
        OSError: it cannot be read.
    """
    file = below(folder, CONFIG)
    train = config.get("train")
    goal = train.get("max_steps") if isinstance(train, dict) else None
    if not isinstance(goal, int) or isinstance(goal, bool):
        raise ValueError(f"{file} has no train.max_steps: it is not a run's")
    try:
        cfg = ranking(config)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error

    # newest first; damaged ones too, as verifying them would take their download
    saved = checkpoints(folder)
    return Run(
        name=folder.rpartition("/")[2],
        step=step_of(saved[0]) if saved else 0,
        goal=goal,
        best=_best_score(saved, cfg),
        metric=cfg.metric,
        written=_last_write(folder, saved),
        status=read_status(folder),
        newest=saved[0] if saved else None,
    )


def _read_yaml(file: str) -> Mapping[str, Any]:
    """Return the section `train` of a config.yaml, by its name; empty if there is none.

    Raises:
        ValueError: it is not YAML, or holds no sections.
        OSError: it cannot be read.
    """
    try:
        raw = read_file(file)
        _check_depth(raw)
        loader = YAML_LOADER(raw)
        # the other sections stay nodes, as making objects of them takes most of the time
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            return {
                key.value: loader.construct_document(value)
                for key, value in node.value
                if key.value == "train"
            }
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    raise ValueError(f"{file} holds no sections: it is not a run's")


def _check_depth(content: bytes) -> None:
    """Refuse YAML that is nested too deep for libyaml's bindings: they end the process.

    Raises:
        ValueError: it is.
        yaml.YAMLError: it is no YAML.
    """
    depth = 0
    for event in yaml.parse(content, Loader=YAML_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} levels")


def _best_score(saved: list[str], cfg: CheckpointConfig) -> float | None:
    """Return the best score of a run's checkpoints; None if none has one."""
    scored = [scores for scores in map(scores_of, saved) if cfg.metric in scores]
    best = min(scored, key=cfg.cost, default=None)  # type: ignore[arg-type]  # all have the metric
    return None if best is None else best[cfg.metric]


def _last_write(folder: str, saved: Sequence[str]) -> datetime:
    """Return when the configuration, the newest metrics or the newest checkpoint were written.

    Args:
        folder: folder or URI of the run.
        saved: its checkpoints, newest first.

    Raises:
        OSError: the folder cannot be read.
    """
    with reachable(folder):
        fs, root = located(folder)
        # names grow with the step, so the last part is the newest
        parts = [f"{METRICS_PARTS}/{name}" for name in names_in(fs, f"{root}/{METRICS_PARTS}")[-1:]]
        newest = [f"{checkpoint_name(step_of(uri))}/{CHECKSUMS}" for uri in saved[:1]]
        paths = [f"{root}/{path}" for path in (CONFIG, METRICS, *parts, *newest)]
        return max(fs.modified(path) for path in paths if fs.exists(path))
