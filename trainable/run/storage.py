"""Checkpoints of a run where they lie: found, verified, fetched, written, pruned; on a disk or an object store."""

import contextlib
import logging
import os
import platform
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import fsspec
import yaml
from fsspec.implementations.local import LocalFileSystem

from data.files import PART_SUFFIX, below, put_file, reachable, read_file
from trainable.config import CheckpointConfig
from trainable.run.format import (
    NAME,
    CheckpointError,
    CheckpointInfo,
    checkpoint_name,
    parse_info,
    read_info,
    step_of,
)

log = logging.getLogger("bert_vits2_ray")
BEST = "best"
OWNER = "owner.txt"


def claim(run: str) -> str:
    """Take over a run's folder: a job that was started earlier, and still lives, saves nothing more in it.

    Returns:
        Who writes it from here on, for `owner`'s answers to be compared with.

    Raises:
        OSError: the folder cannot be written.
    """
    us = f"{uuid.uuid4().hex} on {platform.node()} since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}"
    put_file(below(run, OWNER), us.encode())
    return us


def owner(run: str) -> str:
    """Who has claimed a run's folder last.

    Raises:
        OSError: nobody has, or it cannot be read.
    """
    return read_file(below(run, OWNER)).decode()


def checkpoints(uri: str) -> list[str]:
    """Checkpoints of a run's folder or URI, newest first; damaged ones included, half-written ones not.

    The folder is read rather than Ray Train's own list, which knows a checkpoint only some seconds
    later.
    """
    with reachable(uri):
        fs, root = fsspec.core.url_to_fs(uri)
        fs.invalidate_cache()
        found = fs.glob(f"{root}/checkpoint_*/checksums.json")
    names = (path.split("/")[-2] for path in found)
    return [below(uri, name) for name in sorted(filter(NAME.fullmatch, names), reverse=True)]


@contextlib.contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """A checkpoint as a local folder, for as long as the block lasts."""
    fs, root = fsspec.core.url_to_fs(uri)
    if isinstance(fs, LocalFileSystem):
        yield Path(root)
        return
    with tempfile.TemporaryDirectory() as folder:
        with reachable(uri):
            fs.get(f"{root}/", folder, recursive=True)
        yield Path(folder)


def good(uri: str) -> CheckpointInfo | None:
    """What a checkpoint says of itself, or None where it is damaged, which is said."""
    with fetched(uri) as folder:
        try:
            return read_info(folder)
        except CheckpointError as error:
            log.warning("passes over the checkpoint %s: %s", uri, error)
            return None


def newest_good(uri: str, wanted: Callable[[int], bool] = lambda step: True) -> str | None:
    """The newest checkpoint of a run that is complete and undamaged; says which ones are passed over.

    Args:
        uri: folder or URI of the run.
        wanted: whether a checkpoint of this step will do.
    """
    return next(
        (found for found in checkpoints(uri) if wanted(step_of(found)) and good(found)), None
    )


def read_state(uri: str) -> CheckpointInfo:
    """What a checkpoint says of itself, without a look at its other files.

    Raises:
        CheckpointError: its state.json is damaged.
    """
    return parse_info(read_file(below(uri, "state.json")), below(uri, "state.json"))


def best(uri: str) -> str | None:
    """The good checkpoint of a run with the best score, by the `train.checkpoint.metric` of the newest one."""
    found = checkpoints(uri)
    if not found:
        return None
    cfg = ranking(yaml.safe_load(read_file(below(found[0], "config.yaml"))) or {})
    costs = {c: cfg.cost(scores_of(c)) for c in found}
    ranked = sorted((cost, c) for c, cost in costs.items() if cost is not None)
    return next((candidate for _, candidate in ranked if good(candidate)), None)


def ranking(config: Mapping[str, Any]) -> CheckpointConfig:
    """What the content of a config.yaml says of which checkpoint is better; the defaults where it says nothing."""
    given = config.get("train", {}).get("checkpoint", {})
    return CheckpointConfig(
        **{key: given[key] for key in ("metric", "larger_is_better") if key in given}
    )


def scores_of(uri: str) -> dict[str, float]:
    """Of the validation at a checkpoint's step; empty where there was none, or where nobody can tell."""
    try:
        return read_state(uri).scores
    except (CheckpointError, FileNotFoundError):
        return {}


def resolve(uri: str) -> str:
    """A checkpoint for a folder or URI: a checkpoint itself, a run's newest good one, or `<run>/best`.

    Raises:
        ValueError: there is none.
    """
    with reachable(uri):
        fs, root = fsspec.core.url_to_fs(uri)
        if fs.exists(f"{root}/checksums.json"):
            return uri
    run, _, last = uri.rstrip("/").rpartition("/")
    if last == BEST:
        if (found := best(run)) is None:
            raise ValueError(
                f"{run} holds no checkpoint with a score: it is saved where train.checkpoint.keep_best > 0"
            )
        return found
    if (found := newest_good(uri)) is None:
        raise ValueError(
            f"{uri} holds no checkpoint: give a run's folder (runs/<name>) or a checkpoint_* in it"
        )
    return found


def is_here(path: str) -> bool:
    """Whether a path is a file or folder of this machine, or `<run>/best` of a folder."""
    return Path(path).exists() or (Path(path).name == BEST and Path(path).parent.is_dir())


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
        fs, root = fsspec.core.url_to_fs(uri)
        if isinstance(fs, LocalFileSystem):
            _write_local(Path(root), write)
            return
        # of a damaged one that the run has passed over
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(f"{root}/checksums.json")
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
        if part.exists():
            fs.rm(str(part), recursive=True)
        part.mkdir(parents=True)
        write(create)
        _sync(part)
        if folder.exists():  # a damaged one that the run has passed over
            fs.rm(str(folder), recursive=True)
        part.rename(folder)
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
    """Which checkpoints stay.

    Args:
        scores: step -> scores of each complete checkpoint.
        cfg: what to keep.

    Returns:
        Steps: the newest `keep`, the `keep_best` with the best `metric`, and the newest scheduled
        one, as the run may have to go back to a checkpoint that no notice of a going node placed.
    """
    steps = sorted(scores)
    costs = {step: cfg.cost(own) for step, own in scores.items()}
    ranked = sorted((cost, -step) for step, cost in costs.items() if cost is not None)
    scheduled = [step for step in steps if step % cfg.every_steps == 0]
    return {*steps[-cfg.keep :], *(-step for _, step in ranked[: cfg.keep_best]), *scheduled[-1:]}


def prune(run: str, saved: Sequence[int], cfg: CheckpointConfig, resumed: int = -1) -> None:
    """Remove the checkpoints that need not stay, and what half-written ones have left; to be called after a save.

    What is later than the checkpoint that the run goes on from was damaged, or the run went back
    behind it: it would be taken up again, or keep the place of a good one.

    Args:
        run: folder or URI.
        saved: steps of the checkpoints saved since the start; the last one is durable.
        cfg: what to keep.
        resumed: step that the start went on from.

    Raises:
        OSError: the store is out of reach.
    """
    newest, complete = saved[-1], {step_of(uri): uri for uri in checkpoints(run)}
    assert newest in complete, f"checkpoint {newest} is not there"
    ours = {step for step in complete if step <= newest and (step <= resumed or step in saved)}
    stay = {
        checkpoint_name(step)
        for step in kept({step: scores_of(complete[step]) for step in ours}, cfg)
    }
    with reachable(run):
        fs, root = fsspec.core.url_to_fs(run)
        for path in fs.ls(root, detail=False):
            name = path.rstrip("/").rpartition("/")[2]
            found = NAME.fullmatch(name.removesuffix(PART_SUFFIX))
            if found is None or name in stay:
                continue
            if int(found[1]) not in ours:
                log.warning(
                    "removes %s, which is damaged or which the run has gone back behind", name
                )
            # from here on it is no checkpoint
            if NAME.fullmatch(name) and int(found[1]) in complete:
                fs.rm_file(f"{root}/{name}/checksums.json")
            fs.rm(f"{root}/{name}", recursive=True)
