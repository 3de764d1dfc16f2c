"""Ray Train's own small files, by the filesystem that everything else of a run goes through."""

import io
import logging
from typing import Any

import fsspec
import pyarrow.fs
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

from data.files import put_file, reachable

log = logging.getLogger("bert_vits2_ray")


class _Late(io.BytesIO):
    """A file that is written when it is closed, if it can be."""

    def __init__(self, uri: str):
        super().__init__()
        self.uri = uri

    def close(self) -> None:
        if not self.closed:
            try:
                put_file(self.uri, self.getvalue())
            except OSError as error:
                log.warning("Ray Train's %s is not written, and is not needed: %s", self.uri, error)
        super().close()


class RayTrainFiles(pyarrow.fs.FSSpecHandler):
    """A run's storage for Ray Train's controller.

    It writes a list of checkpoints after each of them. A disk that is full just then would end all
    workers, again and again; and nothing depends on that list, as runs continue from what lies in
    their folder.
    """

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.PythonFile:
        """A file for writing."""
        return pyarrow.PythonFile(_Late(self.fs.unstrip_protocol(path)), mode="w")


def ray_storage(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Filesystem and path of a folder or URI, for Ray Train."""
    fs, path = fsspec.core.url_to_fs(uri)
    return pyarrow.fs.PyFileSystem(RayTrainFiles(fs)), path


def forget_checkpoint_list(run: str) -> None:
    """Remove Ray Train's list of checkpoints, which must name none that is gone, or the driver would not start.

    Args:
        run: folder or URI.

    Raises:
        OSError: the store is out of reach.
    """
    with reachable(run):
        fs, root = fsspec.core.url_to_fs(run)
        if fs.exists(f"{root}/{CHECKPOINT_MANAGER_SNAPSHOT_FILENAME}"):
            fs.rm_file(f"{root}/{CHECKPOINT_MANAGER_SNAPSHOT_FILENAME}")
