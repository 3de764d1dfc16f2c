"""Checkpoints of a run where they lie, on a disk or in an object store.

They are found, verified, fetched, written and pruned here.
"""

import contextlib
import logging
import math
import os
import platform
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import yaml
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from data.files import PART_SUFFIX, below, located, put_file, reachable, read_file
from trainable.config import CheckpointConfig
from trainable.run.format import (
    CHECKSUMS,
    CONFIG,
    OWNER,
    STATE,
    CheckpointError,
    CheckpointInfo,
    checkpoint_name,
    named_step,
    parse_info,
    read_info,
    step_of,
)

log = logging.getLogger("bert_vits2_ray")
BEST = "best"  # `<run>/best` names a run's best checkpoint
# writes a run's list of checkpoints: (folder or URI of the run, name -> what is told of it)
WriteList = Callable[[str, Mapping[str, Mapping[str, Any]]], None]


def write_no_list(_run: str, _told: Mapping[str, Mapping[str, Any]]) -> None:
    """Do nothing: nobody but the folder itself knows of its checkpoints."""


def claim(run: str) -> str:
    """Take over a run's folder: an earlier job that still lives saves nothing more in it.

    Args:
        run: folder or URI of the run.

    Returns:
        The new owner, to be compared with what `owner` returns.

    Raises:
        OSError: the folder cannot be written.
    """
    # the number tells two jobs of one machine apart; the rest is for whoever reads the message
    since = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}"
    us = f"{uuid.uuid4().hex} on {platform.node()} since {since}"
    put_file(below(run, OWNER), us.encode())
    return us


def owner(run: str) -> str:
    """Return who has claimed a run's folder last.

    Raises:
        OSError: nobody has, or it cannot be read.
    """
    return read_file(below(run, OWNER)).decode()


def checkpoints(uri: str) -> list[str]:
    """Return the checkpoints of a run's folder or URI, newest first.

    Damaged ones are included, half-written ones are not. The folder is read rather than Ray Train's
    own list, which knows a checkpoint only some seconds later.
    """
    with reachable(uri):
        fs, root = located(uri)
        # another process has written since the last look, and object stores' listings are kept
        fs.invalidate_cache()
        names = [name for name in names_in(fs, root) if named_step(name) is not None]
        whole = [name for name in names if fs.exists(f"{root}/{name}/{CHECKSUMS}")]
    return sorted((below(uri, name) for name in whole), key=step_of, reverse=True)


def names_in(fs: AbstractFileSystem, folder: str) -> list[str]:
    """Return the names of the files and folders in a folder, sorted; none if it is not there.

    No path is a pattern: a run may be called `anna [v2]`.
    """
    try:
        found = fs.ls(folder, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(path.rstrip("/").rpartition("/")[2] for path in found)


@contextlib.contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """Give a checkpoint as a local folder, for as long as the block lasts."""
    fs, root = located(uri)
    if isinstance(fs, LocalFileSystem):
        yield Path(root)
        return

    with tempfile.TemporaryDirectory() as folder:
        with reachable(uri):
            names = [path.rpartition("/")[2] for path in fs.find(root, maxdepth=1)]
            # two lists are not taken for patterns
            fs.get([f"{root}/{name}" for name in names], [f"{folder}/{name}" for name in names])
        yield Path(folder)


def good(uri: str) -> CheckpointInfo | None:
    """Return what a checkpoint tells about itself; None (logged) if it is damaged."""
    with fetched(uri) as folder:
        try:
            return read_info(folder)
        except CheckpointError as error:
            log.warning("skips the checkpoint %s: %s", uri, error)
            return None


def newest_good(uri: str, wanted: Callable[[int], bool] = lambda step: True) -> str | None:
    """Return the newest checkpoint of a run that is complete and undamaged; log which are skipped.

    Args:
        uri: folder or URI of the run.
        wanted: tells whether a checkpoint of this step will do.
    """
    for found in checkpoints(uri):
        if wanted(step_of(found)) and good(found):
            return found
    return None


def read_state(uri: str) -> CheckpointInfo:
    """Return what a checkpoint tells about itself, without a look at its other files.

    Raises:
        CheckpointError: its state.json is damaged.
    """
    state = below(uri, STATE)
    return parse_info(read_file(state), state)


def best(uri: str) -> str | None:
    """Return the good checkpoint of a run with the best score.

    What is best follows from `train.checkpoint` of the newest checkpoint.

    Raises:
        ValueError: its config.yaml is damaged.
    """
    found = checkpoints(uri)
    if not found:
        return None
    source = below(found[0], CONFIG)
    try:
        cfg = ranking(yaml.safe_load(read_file(source)) or {})
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{source} does not say what is best: {error}") from error

    # scores first, as they are small: only the best candidates are verified, which reads them whole
    costs = {checkpoint: cfg.cost(scores_of(checkpoint)) for checkpoint in found}
    ranked = sorted((cost, checkpoint) for checkpoint, cost in costs.items() if cost is not None)
    return next((checkpoint for _, checkpoint in ranked if good(checkpoint)), None)


def ranking(config: Mapping[str, Any]) -> CheckpointConfig:
    """Return how a configuration ranks checkpoints; the defaults where it does not say.

    Args:
        config: content of a config.yaml.

    Raises:
        ValueError: it says something that is no ranking.
    """
    train = (config.get("train") or {}) if isinstance(config, Mapping) else None
    given = (train.get("checkpoint") or {}) if isinstance(train, Mapping) else None
    if not isinstance(given, Mapping):
        raise ValueError("train.checkpoint is no section")
    types: dict[str, type] = {"metric": str, "larger_is_better": bool}
    found = {key: given[key] for key in types if key in given}
    for key, value in found.items():
        if not isinstance(value, types[key]):
            raise ValueError(f"train.checkpoint.{key} is {value!r}")
    return CheckpointConfig(**found)


def scores_of(uri: str) -> dict[str, float]:
    """Return the scores of the validation at a checkpoint's step.

    They are empty if there was none, or if the checkpoint's state cannot be read.
    """
    info = _info_if_readable(uri)
    return info.scores if info else {}


def told_of(uri: str) -> dict[str, float]:
    """Return all that a checkpoint tells of its step; nothing if its state cannot be read."""
    info = _info_if_readable(uri)
    return info.told if info else {}


def _info_if_readable(uri: str) -> CheckpointInfo | None:
    try:
        return read_state(uri)
    except (CheckpointError, FileNotFoundError):
        return None


def list_checkpoints(run: str, write_list: WriteList, newest: float = math.inf) -> None:
    """List a run's checkpoints as they lie in its folder.

    Args:
        run: folder or URI of the run.
        write_list: writes the list.
        newest: step of the newest one that is listed: a later one is damaged, or of no use.

    Raises:
        OSError: the store is out of reach.
    """
    found = {step_of(uri): _info_if_readable(uri) for uri in checkpoints(run)}
    write_list(run, _told({step: info for step, info in found.items() if step <= newest}))


def _told(found: Mapping[int, CheckpointInfo | None]) -> dict[str, dict[str, Any]]:
    """Return name -> what is told of each checkpoint, by steps; the step alone of a damaged one."""
    return {
        checkpoint_name(step): info.told if info else {"step": step}
        for step, info in sorted(found.items())
    }


def resolve(uri: str) -> str:
    """Return the checkpoint that a folder or URI means.

    Args:
        uri: a checkpoint itself, a run (its newest good checkpoint), or `<run>/best`.

    Raises:
        ValueError: there is none.
    """
    with reachable(uri):
        fs, root = located(uri)
        if fs.exists(f"{root}/{CHECKSUMS}"):
            return uri.rstrip("/")

    run, _, last = uri.rstrip("/").rpartition("/")
    if last == BEST:
        if (found := best(run)) is None:
            raise ValueError(
                f"{run} holds no checkpoint with a score: "
                "it is saved where train.checkpoint.keep_best > 0"
            )
        return found

    if (found := newest_good(uri)) is None:
        raise ValueError(
            f"{uri} holds no checkpoint: give a run's folder (runs/<name>) or a checkpoint_* in it"
        )
    return found


def is_here(path: str) -> bool:
    """Tell whether a path is a file or folder of this machine, or `<run>/best` of a folder."""
    fs, where = located(path)
    local = Path(where)
    return isinstance(fs, LocalFileSystem) and (
        local.exists() or (local.name == BEST and local.parent.is_dir())
    )


Create = Callable[[str], contextlib.AbstractContextManager[IO[bytes]]]  # opens a file to write


def write_checkpoint(run: str, step: int, write: Callable[[Create], None]) -> None:
    """Write a checkpoint straight to where it belongs: durable on return, absent on failure.

    On a local disk a folder of another name is written, synced and renamed. In an object store
    checksums.json, which makes the folder a checkpoint, comes last.

    Args:
        run: folder or URI of the run.
        step: global steps done.
        write: writes the files, checksums.json last, each with the function that it is given.

    Raises:
        OSError: the disk is full, or the store out of reach.
    """
    uri = below(run, checkpoint_name(step))
    with reachable(uri):
        fs, root = located(uri)
        if isinstance(fs, LocalFileSystem):
            _write_local(Path(root), write)
            return

        # a damaged one that the run has skipped may lie there
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{CHECKSUMS}")
        write(lambda name: fs.open(f"{root}/{name}", "wb"))


def _write_local(folder: Path, write: Callable[[Create], None]) -> None:
    part = folder.with_name(folder.name + PART_SUFFIX)
    fs = LocalFileSystem()

    @contextlib.contextmanager
    def create(name: str) -> Iterator[IO[bytes]]:
        with (part / name).open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    try:
        if part.exists():  # of a process that was killed
            fs.rm(str(part), recursive=True)
        part.mkdir(parents=True)
        write(create)
        _sync(part)
        if folder.exists():  # a damaged one that the run has skipped
            fs.rm(str(folder), recursive=True)
        part.rename(folder)
        # the new name must be on the disk too
        _sync(folder.parent)
    except OSError:
        with contextlib.suppress(OSError):  # on a full disk it would stand in the way
            fs.rm(str(part), recursive=True)
        raise


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def kept(scores: dict[int, dict[str, float]], cfg: CheckpointConfig) -> set[int]:
    """Return which checkpoints stay.

    Args:
        scores: step -> scores of each complete checkpoint.
        cfg: what to keep.

    Returns:
        Steps: the newest `keep` or all, the `keep_best` with the best `metric`, and the newest
        scheduled one, as the run may have to return to a checkpoint that was not saved because of a
        notice.
    """
    # the three sets overlap as a rule
    steps = sorted(scores)
    newest = steps[-cfg.keep :] if cfg.keep else steps

    costs = {step: cfg.cost(own) for step, own in scores.items()}
    ranked = sorted((cost, -step) for step, cost in costs.items() if cost is not None)
    best_scores = [-step for _, step in ranked[: cfg.keep_best]]

    scheduled = [step for step in steps if step % cfg.every_steps == 0]
    return {*newest, *best_scores, *scheduled[-1:]}


def prune(
    run: str,
    saved: Sequence[int],
    cfg: CheckpointConfig,
    resumed: int = -1,
    write_list: WriteList = write_no_list,
) -> None:
    """Remove the checkpoints that need not stay, and what half-written ones have left.

    Those that stay are listed first, so that a list never names one that is gone, whenever this
    process ends.

    To be called after a save. A checkpoint that is later than the one that the run resumed from,
    and was not saved since, was damaged, or the run was rolled back behind it: a later start would
    resume from it, or it would take the place of a good one.

    Args:
        run: folder or URI.
        saved: steps of the checkpoints saved since the start; the last one is durable.
        cfg: what to keep.
        resumed: step that the start resumed from.
        write_list: writes the run's list of checkpoints.

    Raises:
        OSError: the store is out of reach.
    """
    newest = saved[-1]
    complete = {step_of(uri): uri for uri in checkpoints(run)}
    assert newest in complete, f"checkpoint {newest} is not there"

    ours = {step for step in complete if step <= newest and (step <= resumed or step in saved)}
    infos = {step: _info_if_readable(complete[step]) for step in ours}
    staying = kept({step: info.scores if info else {} for step, info in infos.items()}, cfg)
    stay = {checkpoint_name(step) for step in staying}
    write_list(run, _told({step: infos[step] for step in staying}))

    with reachable(run):
        fs, root = located(run)
        for name in names_in(fs, root):
            step = named_step(name.removesuffix(PART_SUFFIX))
            if step is None or name in stay:
                continue

            if step not in ours:
                log.warning(
                    "removes %s: it is damaged, or later than what the run resumed from", name
                )
            # from here on it is no checkpoint
            if not name.endswith(PART_SUFFIX) and step in complete:
                fs.rm_file(f"{root}/{name}/{CHECKSUMS}")
            _remove(fs, f"{root}/{name}")


def _remove(fs: AbstractFileSystem, folder: str) -> None:
    """Remove a folder with its files; `fs.rm` of an object store would take it for a pattern."""
    if isinstance(fs, LocalFileSystem):
        fs.rm(folder, recursive=True)
        return
    for path in fs.find(folder):
        fs.rm_file(path)
