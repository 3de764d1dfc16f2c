"""Where a configuration's files lie: the run's folder, and local paths made absolute."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data.config import DataConfig
from data.files import PathError, below, is_local, is_uri, local_path, located, stays_below
from job.settings.config import Config
from trainable.run.format import CHECKPOINT_NAME, CHECKSUMS
from trainable.run.storage import BEST, is_here

LONGEST_NAME = 255  # bytes of a file's name, on all usual file systems


def run_folder(cfg: Config) -> str:
    """Return the folder or URI of the run.

    Raises:
        ValueError: run.name is not the name of a folder, or means something else in a path.
    """
    if problem := _name_problem(cfg.run.name):
        raise ValueError(f"run.name is {cfg.run.name!r}: {problem}")
    return below(cfg.run.storage, cfg.run.name)


def _name_problem(name: str) -> str:
    """Return what is wrong with the name of a run, and what to do; empty if nothing is."""
    if "/" in name or not stays_below(name):
        return "give the name of a folder, which lies in run.storage"
    if not all(char.isprintable() or char in JOINERS for char in name) or name != name.strip():
        return "it holds something that nobody sees: leave it out"
    if name == BEST or CHECKPOINT_NAME.fullmatch(name):
        return f"RUN/{name} means a checkpoint of a run: choose another name"
    if (size := len(name.encode())) > LONGEST_NAME:
        return f"it has {size} bytes, and file systems take {LONGEST_NAME}: choose a shorter one"
    return ""


def with_absolute_paths(cfg: Config) -> Config:
    """Return a configuration whose local paths are absolute.

    Workers have another working directory than the command.

    Raises:
        ValueError: a path that this machine cannot use; names the key.
    """
    data = cfg.data
    slm = replace(cfg.model.slm, path=_model("model.slm.path", cfg.model.slm.path))
    return replace(
        cfg,
        run=replace(cfg.run, storage=_path("run.storage", cfg.run.storage)),
        data=replace(
            data,
            transcript=data.transcript and _path("data.transcript", data.transcript),
            audio_root=data.audio_root and _path("data.audio_root", data.audio_root),
            shards=_path("data.shards", data.shards),
            bert=data.bert.with_paths(partial(_model, "data.bert")),
        ),
        model=replace(cfg.model, slm=slm),
        train=replace(
            cfg.train,
            init_from=cfg.train.init_from and _model("train.init_from", cfg.train.init_from),
        ),
    )


def _path(key: str, value: str) -> str:
    """Return `absolute` of a key's value; name the key if it is no path."""
    try:
        return absolute(value)
    except PathError as error:
        raise ValueError(f"{key}: {error}") from error


def _model(key: str, value: str) -> str:
    """Return `_path` of a key's value, unless it is the name of a model on the hub."""
    # a hub name looks like a relative path, and is taken for one only if something is there
    return _path(key, value) if is_uri(value) or is_here(value) else value


def absolute(path: str) -> str:
    """Return a local path as an absolute one, and URIs as they are.

    Raises:
        PathError: it is no path that this machine can use.
    """
    fs, where = located(path)
    return os.path.realpath(where) if isinstance(fs, LocalFileSystem) else path


def output(option: str, out: str) -> str:
    """Return where a command is asked to write, with local paths absolute.

    Args:
        option: the option that says so, for messages.
        out: path or URI.

    Raises:
        ValueError: it is no path or URI, or lies in the folder of a checkpoint, which never
            changes.
    """
    where = _path(option, out)
    for folder in (where, *_parents(where)):
        name = folder.rpartition("/")[2]
        if CHECKPOINT_NAME.fullmatch(name):
            raise ValueError(
                f"{option} {out} lies in the checkpoint {name}, which never changes: give a place "
                "outside of it"
            )
    return where


def output_file(option: str, out: str) -> str:
    """Return `output` for a file, which may be there already; make sure that it can be written.

    Raises:
        ValueError: see `output`; or it is a folder, or may not be written.
    """


