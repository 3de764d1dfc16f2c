"""Where a command's files lie: the run's folder, local paths made absolute, where it may write."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from fsspec.implementations.local import LocalFileSystem

from data.config import TextConfig
from data.files import PathError, below, is_uri, located, reachable, stays_below
from data.text.readings import load_readings
from job.settings.config import Config
from trainable.run.format import CHECKPOINT_NAME, CHECKSUMS
from trainable.run.storage import BEST, is_here

LONGEST_NAME = 255  # bytes of a file's name, on all usual file systems
JOINERS = "\u200c\u200d"  # unseen, and part of words and emoji
READ_ONLY = ("http://", "https://")


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
    if not all(map(is_shown, name)) or name != name.strip():
        return "it holds something that nobody sees: leave it out"
    if name == BEST or CHECKPOINT_NAME.fullmatch(name):
        return f"RUN/{name} means a checkpoint of a run: choose another name"
    if (size := len(name.encode())) > LONGEST_NAME:
        return f"it has {size} bytes, and file systems take {LONGEST_NAME}: choose a shorter one"
    return ""


def is_shown(char: str) -> bool:
    """Tell whether a character is one that people see, or joins two into one."""
    return char.isprintable() or char in JOINERS


def with_absolute_paths(cfg: Config) -> Config:
    """Return a configuration whose local paths are absolute.

    Workers have another working directory than the command.

    Raises:
        ValueError: a path that this machine cannot use; names the key.
    """
    data = cfg.data
    if cfg.run.storage.lower().startswith(READ_ONLY):
        raise ValueError(f"run.storage {cfg.run.storage} cannot be written to: give s3://...")
    slm = replace(cfg.model.slm, path=_model("model.slm.path", cfg.model.slm.path))
    return replace(
        cfg,
        run=replace(cfg.run, storage=_kept_path("run.storage", cfg.run.storage)),
        data=replace(
            data,
            transcript=data.transcript and _kept_path("data.transcript", data.transcript),
            audio_root=data.audio_root and _kept_path("data.audio_root", data.audio_root),
            shards=_kept_path("data.shards", data.shards),
            text=_with_words(data.text),
            bert=data.bert.with_paths(partial(_model, "data.bert")),
            asr=replace(data.asr, model=_model("data.asr.model", data.asr.model)),
        ),
        model=replace(cfg.model, slm=slm),
        train=replace(
            cfg.train,
            init_from=cfg.train.init_from and _model("train.init_from", cfg.train.init_from),
        ),
        eval=replace(
            cfg.eval,
            scorers={
                name: replace(scorer, path=_model(f"eval.scorers.{name}.path", scorer.path))
                for name, scorer in cfg.eval.scorers.items()
            },
        ),
    )


def _with_words(text: TextConfig) -> TextConfig:
    """Return the configuration of texts with the words of its file, as a run is to keep them.

    Raises:
        ValueError: there is no such file, or something in it is wrong; names the line.
    """
    uri = text.readings and _kept_path("data.text.readings", text.readings)
    return replace(text, readings=None, words=load_readings(uri, text.words))


def _kept_path(key: str, value: str) -> str:
    """Return `named_path` of a key, whose value is kept in text files.

    Raises:
        ValueError: it is no path, or its bytes are no text in this locale.
    """
    path = named_path(key, value)
    if any(0xD800 <= ord(char) < 0xE000 for char in path):
        raise ValueError(f"{key}: {value!r} is no text in this locale: set LC_ALL to its encoding")
    return path


def named_path(key: str, value: str) -> str:
    """Return `absolute` of the value of a key or option.

    Raises:
        ValueError: it is no path; names the key.
    """
    try:
        return absolute(value)
    except PathError as error:
        raise ValueError(f"{key}: {error}") from error


def _model(key: str, value: str) -> str:
    """Return `_path` of a key's value, unless it is the name of a model on the hub."""
    # a hub name looks like a relative path, and is taken for one only if something is there
    if value.startswith(("/", "~", ".")) or is_uri(value):
        return _kept_path(key, value)
    try:
        return _kept_path(key, value) if is_here(value) else value
    except PathError as error:
        raise ValueError(f"{key}: {error}") from error


def absolute(path: str) -> str:
    """Return a local path as an absolute one, and URIs as they are.

    Raises:
        PathError: it is no path that this machine can use.
    """
    fs, where = located(path)
    return os.path.realpath(where) if isinstance(fs, LocalFileSystem) else path


def output_file(option: str, out: str) -> str:
    """Return where a command is asked to write a file; local paths absolute. Nothing is written.

    Args:
        option: the option that asks, for messages.
        out: path or URI.

    Raises:
        ValueError: it is no path or URI, is a folder, cannot be written, or lies in the folder of a
            checkpoint, which never changes.
    """
    return _output(option, out, folder=False)


def output_folder(option: str, out: str) -> str:
    """Return where a command is asked to write files; see `output_file`."""
    return _output(option, out, folder=True)


def _output(option: str, out: str, folder: bool) -> str:
    where = named_path(option, out)
    if where.lower().startswith(READ_ONLY):
        raise ValueError(f"{option} {out} cannot be written to: give a folder, or s3://...")
    fs, path = located(where)
    with reachable(where):
        if fs.isfile(path) if folder else fs.isdir(path) or out.endswith("/"):
            wanted = "the name of a folder" if folder else "the name of a file in it"
            raise ValueError(f"{option} {out} is a {'file' if folder else 'folder'}: give {wanted}")
        inside = next((each for each in _upwards(path) if fs.exists(f"{each}/{CHECKSUMS}")), None)
    if inside is not None:
        raise ValueError(
            f"{option} {out} lies in the checkpoint {inside}, which never changes: "
            "give a place outside of it"
        )
    if isinstance(fs, LocalFileSystem):
        _check_local(option, path)
    return where


def _upwards(path: str) -> Iterator[str]:
    """Yield a path and the folders that it lies in, without the root or bucket."""
    while path.strip("/"):
        yield path
        path = path.rpartition("/")[0]


def _check_local(option: str, path: str) -> None:
    """Refuse a place where nothing can be written; a file without a name shows it."""
    folder = next(filter(os.path.exists, _upwards(path)), "/")
    try:
        if os.path.isfile(path):  # noqa: PTH113
            folder = os.path.dirname(path)  # noqa: PTH120
            with open(path, "ab"):  # noqa: PTH123
                pass
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} {path} cannot be written: {error.strerror} ({folder}): give another place"
        ) from error
