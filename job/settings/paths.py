"""Where a configuration's files lie: the run's folder, and local paths made absolute."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from data.config import DataConfig
from data.files import stays_below
from job.settings.config import Config
from trainable.run.storage import is_here


def run_folder(cfg: Config) -> str:
    """Return the folder or URI of the run.

    Raises:
        ValueError: run.name is not the name of a folder.
    """
    name = cfg.run.name
    if "/" in name or not stays_below(name) or not name.isprintable():
        raise ValueError(
            f"run.name is {name!r}: give the name of a folder, which lies in run.storage"
        )
    return f"{cfg.run.storage.rstrip('/')}/{name}"


def with_absolute_paths(cfg: Config) -> Config:
    """Return a configuration whose local paths are absolute.

    Workers have another working directory than the command.
    """
    storage = absolute(cfg.run.storage)
    slm = replace(cfg.model.slm, path=absolute(cfg.model.slm.path, model=True))
    init_from = cfg.train.init_from and absolute(cfg.train.init_from, model=True)
    return replace(
        cfg,
        run=replace(cfg.run, storage=storage),
        data=_with_absolute_paths(cfg.data),
        model=replace(cfg.model, slm=slm),
        train=replace(cfg.train, init_from=init_from),
    )


def _with_absolute_paths(data: DataConfig) -> DataConfig:
    bert = data.bert.with_paths(partial(absolute, model=True))
    return replace(
        data,
        transcript=data.transcript and absolute(data.transcript),
        audio_root=data.audio_root and absolute(data.audio_root),
        shards=absolute(data.shards),
        bert=bert,
    )


def absolute(path: str, model: bool = False) -> str:
    """Return a local path as an absolute one, and URIs as they are.

    Args:
        path: path or URI.
        model: whether it may be the name of a model on the hub, which stays as it is.
    """
    # a hub name looks like a relative path, and is taken for one only if something is there
    if "://" in path or (model and not is_here(path)):
        return path
    return str(Path(path).expanduser().resolve())
