"""Ray Train's own small files, through the filesystem that all else of a run goes through."""

import io
import logging
from typing import Any

import pyarrow.fs

from data.files import located, put_file, reachable
from job.on_ray.private import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

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

    The controller writes a list of checkpoints after each of them. A disk that is full just then
    would end all workers, again and again. Nothing depends on that list: runs continue from what
    lies in their folder.
    """

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.PythonFile:
        """Return a file for writing."""
        return pyarrow.PythonFile(_Late(self.fs.unstrip_protocol(path)), mode="w")


def ray_storage(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return filesystem and path of a folder or URI, for Ray Train."""
    fs, path = located(uri)
    return pyarrow.fs.PyFileSystem(RayTrainFiles(fs)), path


def forget_checkpoint_list(run: str) -> None:
    """Remove Ray Train's list of checkpoints.

    If it named one that is gone, the driver would not start.

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
