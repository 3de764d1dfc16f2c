"""Files wherever they lie: whole reads, atomic writes, patience, and the errors of object stores as OSError."""

import contextlib
import logging
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import parse_qsl

import fsspec
from fsspec.implementations.local import LocalFileSystem

log = logging.getLogger("bert_vits2_ray")
T = TypeVar("T")
PART_SUFFIX = ".part"  # of a file whose writing was cut off
LONGEST_PAUSE_S = 10.0
PATIENCE_S = 60.0  # with a store that does not answer, where nothing else is said

# user:password@host, though user may be all there is for the web and S3, and a password may hold
# slashes; not host:port
_PASSWORD = re.compile(r"://[^/@:]*:(?!\d+(/|\?|$))[^@]*@|(https?|s3a?)://[^/@]*@")
_SECRET = re.compile(
    r"secret|token|signature|password|passwd|credential|access_?key|api_?key|^key$|^sig$",
    re.IGNORECASE,
)

# Every request to S3 goes through botocore, which backs off and asks again, for some 15 s in all;
# where a third of the answers are 503, one request in 700 still fails. What the user has set in the
# environment counts.
os.environ.setdefault("AWS_RETRY_MODE", "standard")
os.environ.setdefault("AWS_MAX_ATTEMPTS", "6")


class UnreachableError(OSError):
    """A store that does not answer: nothing can be said of the files in it."""


class StorageError(OSError):
    """A run's folder could not be read or written for too long."""


@contextlib.contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Calls of a file system inside it raise OSError, UnreachableError where the store is at fault, or ValueError.

    Args:
        uri: what is read or written, for the message.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
        raise
    except ValueError as error:
        raise ValueError(f"{uri} is no path or URI that can be used: {error}") from error
    except Exception as error:  # each store has exceptions of its own
        if isinstance(error, OSError) and is_local(uri):
            raise
        raise UnreachableError(f"{uri} cannot be reached: {error}") from error


def keep_trying(action: Callable[[], T], seconds: float | None = None) -> T:
    """Do something with files, and again with growing pauses where the storage fails (full disk, store out of reach).

    Args:
        action: may be done again after any part of it was done.
        seconds: after which no further attempt begins; PATIENCE_S if none are given.

    Raises:
        OSError: of the last attempt, or of one that no waiting mends: a file that is not there or
            may not be touched, a store whose client is not installed.
    """
    deadline, pause = time.monotonic() + (PATIENCE_S if seconds is None else seconds), 0.25
    while True:
        try:
            return action()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except OSError as error:
            # of the store's client
            if time.monotonic() + pause > deadline or isinstance(error.__cause__, ImportError):
                raise
            log.warning("%s: tries again in %.1f s", error, pause)
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, LONGEST_PAUSE_S)


class Source:
    """A file for Arrow to read from, whose store's failures are told from damage: they are raised as `reachable` does.

    No read-ahead of fsspec's: Arrow fetches a row group in one request.
    """

    def __init__(self, uri: str):
        """Open a file or URI.

        Raises:
            OSError: as of `read_file`.
        """
        self.uri = uri
        with reachable(uri):
            fs, path = fsspec.core.url_to_fs(uri)
            self.file = fs.open(path, "rb", cache_type="none")

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        with reachable(self.uri):
            return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Where it stands."""
        return self.file.tell()

    def close(self) -> None:
        """Close it."""
        self.file.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self.file.closed

    def readable(self) -> bool:
        """Yes; Arrow asks."""
        return True

    def seekable(self) -> bool:
        """Yes; Arrow asks."""
        return True

    def writable(self) -> bool:
        """No; Arrow asks."""
        return False


def is_local(uri: str) -> bool:
    """Whether a path or URI is of this machine's file system."""
    return isinstance(fsspec.core.url_to_fs(uri)[0], LocalFileSystem)


def has_credentials(uri: str) -> bool:
    """Whether a URI holds a password, key or token, which logs, configurations and manifests would then hold too."""
    names = (name for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True))
    return "://" in uri and bool(_PASSWORD.search(uri) or any(map(_SECRET.search, names)))


def stays_below(path: str) -> bool:
    """Whether a path, joined to a folder, lies in it: relative, and without `..`."""
    return not {"", ".", ".."} & set(path.split("/")) and not set("\\\0") & set(path)


def below(uri: str, path: str) -> str:
    """A path below a folder or URI."""
    return f"{uri.rstrip('/')}/{path}"


def read_file(uri: str) -> bytes:
    """The content of a file or URI.

    Raises:
        OSError: it is not there, may not be read, or its store does not answer (UnreachableError).
    """
    with reachable(uri):
        fs, path = fsspec.core.url_to_fs(uri)
        return fs.cat_file(path)


def put_file(uri: str, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one: object stores do, local disks by a rename.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    with reachable(uri):
        fs, path = fsspec.core.url_to_fs(uri)
        if not isinstance(fs, LocalFileSystem):
            fs.pipe_file(path, content)
            return
        part = f"{path}.{uuid.uuid4().hex}{PART_SUFFIX}"  # two writers of one file do not meet
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            fs.pipe_file(part, content)
            fs.mv(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):  # on a full disk the part would stand in the way
                fs.rm_file(part)
            # a failed write does not say where
            raise OSError(error.errno, error.strerror, path) from error
