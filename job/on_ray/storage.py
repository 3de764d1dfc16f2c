"""Ray Train's own small files, through the filesystem that all else of a run goes through."""

import io
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow.fs

from data.files import below, located, put_file, reachable
from job.on_ray.private import (
    CHECKPOINT_MANAGER_SNAPSHOT_FILENAME,
    CheckpointManagerInitializationError,
    Result,
    list_of_checkpoints,
)

log = logging.getLogger("bert_vits2_ray")


class _Late(io.BytesIO):
    """A file that is written when it is closed; if that fails, it is logged and no error."""

    def __init__(self, uri: str):
        super().__init__()
        self.uri = uri

    def close(self) -> None:
        if not self.closed:
            try:
                put_file(self.uri, self.getvalue())
            except OSError as error:
                log.warning(
                    "Ray Train's %s cannot be written, and is not needed: %s", self.uri, error
                )
        super().close()


class RayTrainFiles(pyarrow.fs.FSSpecHandler):
    """A run's storage for Ray Train's controller.

    A disk that is full just when it writes would end all workers, again and again. Nothing depends
    on those files: runs continue from what lies in their folder.
    """

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.PythonFile:
        """Return a file for writing."""
        return pyarrow.PythonFile(_Late(self.fs.unstrip_protocol(path)), mode="w")


def ray_storage(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return filesystem and path of a folder or URI, for Ray Train."""
    fs, path = located(uri)
    return pyarrow.fs.PyFileSystem(RayTrainFiles(fs)), path


def write_checkpoint_list(run: str, told: Mapping[str, Mapping[str, Any]]) -> None:
    """Write Ray Train's list of a run's checkpoints, of which its `Result` is made.

    If it cannot be written, as on a full disk, there is none: rather that than one which names
    checkpoints that are gone.

    Args:
        run: folder or URI of the run.
        told: name of the checkpoint -> its metrics, the latest last.

    Raises:
        OSError: the list can be neither written nor removed.
    """
    try:
        put_file(below(run, CHECKPOINT_MANAGER_SNAPSHOT_FILENAME), list_of_checkpoints(told))
    except OSError as error:
        log.warning("Ray Train's list of checkpoints is written at the next one: %s", error)
        forget_checkpoint_list(run)


def with_listed_checkpoints(result: Result) -> Result:
    """Return the result of a run with all checkpoints of its list: the controller knows the newest.

    Args:
        result: what the controller returns.
    """
    try:
        listed = Result.from_path(str(result.path), result.filesystem)
    except (OSError, RuntimeError, CheckpointManagerInitializationError) as error:
        log.warning("the run's result has its newest checkpoint alone: %s", error)
        return result
    return replace(
        result,
        metrics=listed.metrics,
        checkpoint=listed.checkpoint,
        best_checkpoints=listed.best_checkpoints,
        metrics_dataframe=listed.metrics_dataframe,
    )


def forget_checkpoint_list(run: str) -> None:
    """Remove Ray Train's list of checkpoints.

    Args:
        run: folder or URI of the run.

    Raises:
        OSError: the store is out of reach.
    """
    with reachable(run):
        fs, root = located(run)
        path = f"{root}/{CHECKPOINT_MANAGER_SNAPSHOT_FILENAME}"
        if fs.exists(path):
            fs.rm_file(path)
