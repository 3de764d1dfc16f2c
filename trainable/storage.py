"""Checkpoints of a run where they lie: found, verified, fetched; on a local disk or an object store."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np

from trainable.checkpoint import CheckpointError, read_info

log = logging.getLogger("bert_vits2_ray")


def checkpoints(uri: str) -> list[str]:
    """Checkpoints of a run's folder or URI, newest first, damaged or half-uploaded ones included.

    The folder is read rather than Ray Train's own list, which knows a checkpoint only some seconds later.
    """
    fs, root = fsspec.core.url_to_fs(uri)
    found = sorted(fs.glob(f"{root}/checkpoint_*/checksums.json"), reverse=True)
    return [f"{uri.rstrip('/')}/{path.split('/')[-2]}" for path in found]


@contextlib.contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """A checkpoint as a local folder, for as long as the block lasts."""
    fs, root = fsspec.core.url_to_fs(uri)
    if "file" in np.atleast_1d(fs.protocol):
        yield Path(root)
        return
    with tempfile.TemporaryDirectory() as folder:
        fs.get(f"{root}/", folder, recursive=True)
        yield Path(folder)


def newest_good(uri: str, wanted: Callable[[int], bool] = lambda step: True) -> str | None:
    """The newest checkpoint of a run that is complete and undamaged; says which ones are passed over.

    Args:
        uri: folder or URI of the run.
        wanted: whether a checkpoint of this step will do.
    """
    for candidate in checkpoints(uri):
        if not wanted(int(candidate.rpartition("_")[2])):
            continue
        with fetched(candidate) as folder:
            try:
                read_info(folder)
            except CheckpointError as error:
                log.warning("passes over a checkpoint, and takes the one before: %s", error)
                continue
            return candidate
    return None


def resolve(uri: str) -> str:
    """A checkpoint for a checkpoint's or a run's folder or URI: itself, or the run's newest good one.

    Raises:
        ValueError: there is none.
    """
    fs, root = fsspec.core.url_to_fs(uri)
    if fs.exists(f"{root}/checksums.json"):
        return uri
    found = newest_good(uri)
    if found is None:
        raise ValueError(f"{uri} holds no checkpoint: give a run's folder (runs/<name>) or a checkpoint_* in it")
    return found
