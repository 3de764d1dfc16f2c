"""Where a configuration's files lie."""

from dataclasses import replace
from pathlib import Path

from data.files import stays_below
from job.settings.config import Config
from trainable.run.storage import is_here


def run_folder(cfg: Config) -> str:
    """Folder or URI of the run.

    Raises:
        ValueError: run.name is no name of a folder.
    """
    name = cfg.run.name
    if "/" in name or not stays_below(name) or not name.isprintable():
        raise ValueError(
            f"run.name is {name!r}: give the name of a folder, which lies in run.storage"
        )
    return f"{cfg.run.storage.rstrip('/')}/{cfg.run.name}"


def with_absolute_paths(cfg: Config) -> Config:
    """Local paths made absolute: workers have a working directory of their own."""
    bert = cfg.data.bert
    bert = replace(
        bert,
        zh=absolute(bert.zh, model=True),
        jp=absolute(bert.jp, model=True),
        en=absolute(bert.en, model=True),
    )
    slm = replace(cfg.model.slm, path=absolute(cfg.model.slm.path, model=True))
    transcript = cfg.data.transcript and absolute(cfg.data.transcript)
    audio_root = cfg.data.audio_root and absolute(cfg.data.audio_root)
    return replace(
        cfg,
        run=replace(cfg.run, storage=absolute(cfg.run.storage)),
        data=replace(
            cfg.data,
            transcript=transcript,
            audio_root=audio_root,
            shards=absolute(cfg.data.shards),
            bert=bert,
        ),
        model=replace(cfg.model, slm=slm),
        train=replace(
            cfg.train, init_from=cfg.train.init_from and absolute(cfg.train.init_from, model=True)
        ),
    )


def absolute(path: str, model: bool = False) -> str:
    """A local path as an absolute one; URIs as they are, and so is a `model` that is not here (a hub name)."""
    if "://" in path or (model and not is_here(path)):
        return path
    return str(Path(path).expanduser().resolve())
