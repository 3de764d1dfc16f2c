"""Files, local or in an object store: whole reads, atomic writes, retries, errors as OSError.

Paths and URIs are literal: nothing in them is a pattern, an escape or a chain of file systems.
"""

import contextlib
import hashlib
import logging
import os
import random
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

log = logging.getLogger("bert_vits2_ray")
T = TypeVar("T")
PART_SUFFIX = ".part"  # of a file that is being written, or whose writing was interrupted
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
SETTLED_S = 2.0  # the coarsest clock of a file system
PATIENCE_S = 60.0  # how long a store that does not answer is asked again by default

# s3://..., or a chain of file systems such as zip://x.wav::s3://...; one letter is a Windows drive
_URI = re.compile(r"([a-z][a-z0-9+.-]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CHAINED = re.compile(r"::([a-z][a-z0-9+.-]+://|/)", re.IGNORECASE)
_LOCAL_URI = re.compile(r"(file|local)://", re.IGNORECASE)
_HALF_A_URI = re.compile(r"[a-z][a-z0-9+.-]+:/(?!/)", re.IGNORECASE)
_WINDOWS = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

# user:password@host, or user@host on the web and S3; a password may hold slashes; not host:port
_PASSWORD = re.compile(r"://[^/@:]*:(?!\d+(/|\?|$))[^@]*@|(https?|s3a?)://[^/@]*@")
_SECRET = re.compile(
    r"secret|token|signature|password|passwd|credential|access_?key|api_?key|^key$|^sig$",
    re.IGNORECASE,
)

# Every request to S3 goes through botocore, which backs off and asks again, for about 15 s in all;
# if a third of the answers are 503, one request in 700 still fails. The user's own environment
# variables take precedence.
os.environ.setdefault("AWS_RETRY_MODE", "standard")
os.environ.setdefault("AWS_MAX_ATTEMPTS", "6")


class UnreachableError(OSError):
    """A store does not answer, which says nothing about the files in it."""


class PathError(ValueError):
    """A text that is no path or URI which this machine can use."""


class StorageError(OSError):
    """A run's folder could not be read or written for too long."""


@contextlib.contextmanager
def reachable(uri: str) -> Iterator[None]:
    """Turn whatever a file system raises inside it into OSError or ValueError.

    Args:
        uri: what is read or written, for the message.

    Raises:
        UnreachableError: the store is at fault.
        OSError: a local file system's own, or a file is missing or may not be used.
        PathError: the path or URI is malformed.
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
        raise
    except PathError:
        raise
    except ValueError as error:
        raise PathError(f"{uri} is not a usable path or URI: {error}") from error
    except Exception as error:  # each store has exceptions of its own
        if isinstance(error, OSError) and is_local(uri):
            raise
        raise UnreachableError(f"{uri} cannot be reached: {error}") from error


def keep_trying(action: Callable[[], T], seconds: float | None = None) -> T:
    """Do something with files; repeat it, with growing pauses, while the storage fails.

    Storage fails when a disk is full or a store does not answer.

    Args:
        action: may be repeated after any part of it was done.
        seconds: no further attempt begins after this time; None for PATIENCE_S.

    Raises:
        OSError: that of the last attempt, or one that no waiting cures: a file that is missing or
            may not be used, a store whose client is not installed.
    """
    deadline = time.monotonic() + (PATIENCE_S if seconds is None else seconds)
    pause = FIRST_PAUSE_S
    while True:
        try:
            return action()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except OSError as error:
            no_client = isinstance(error.__cause__, ImportError)
            if no_client or time.monotonic() + pause > deadline:
                raise
            log.warning("%s: trying again in %.1f s", error, pause)
        # random, so that many workers do not ask at once
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, LONGEST_PAUSE_S)


class Source:
    """A file for Arrow to read from, which raises a store's failures as `reachable` does.

    So they can be told from damage. It reads nothing ahead: Arrow fetches a row group in one
    request.
    """

    def __init__(self, uri: str):
        """Open a file or URI.

        Raises:
            OSError: see `read_file`.
        """
        self.uri = uri
        with reachable(uri):
            fs, path = located(uri)
            self.file = fs.open(path, "rb", cache_type="none")

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        with reachable(self.uri):
            return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in the file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self.file.tell()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self.file.closed

    def readable(self) -> bool:
        """Return True; Arrow asks."""
        return True

    def seekable(self) -> bool:
        """Return True; Arrow asks."""
        return True

    def writable(self) -> bool:
        """Return False; Arrow asks."""
        return False


def is_uri(path: str) -> bool:
    """Tell a URI, such as s3://bucket/x, from a path of this machine's file system."""
    return _URI.match(path) is not None


def located(uri: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a path or URI, and the path in it.

    Raises:
        PathError: it is no path or URI that this machine can use.
        ImportError: the client of its store is not installed.
    """
    scheme = _LOCAL_URI.match(uri)
    if scheme is not None and not _CHAINED.search(uri):
        if not uri[scheme.end() :].startswith("/"):
            raise PathError(f"{uri} names no absolute path: write file:///folder/name")
        return LocalFileSystem(), local_path(uri[scheme.end() :])
    if not is_uri(uri):
        return LocalFileSystem(), local_path(uri)

    # two colons in a name would be taken for a chain of file systems
    head, colons, rest = (uri, "", "") if _CHAINED.search(uri) else uri.partition("::")
    try:
        fs, path = fsspec.core.url_to_fs(head)
    except ValueError as error:
        raise PathError(f"{uri} is not a usable path or URI: {error}") from error
    return fs, path + colons + rest.rstrip("/")


def local_path(path: str) -> str:
    """Return a path of this machine as an absolute one; `~` is a home folder.

    Raises:
        PathError: it is empty, of Windows, half a URI, or names a user who is not there.
    """
    if not path or "\0" in path:
        raise PathError(f"{path!r} is no path: give the name of a file or folder")
    if _WINDOWS.match(path):
        raise PathError(
            f"{path} is a path of Windows: give one of this machine (in WSL, C:\\x is /mnt/c/x)"
        )
    if _HALF_A_URI.match(path):
        raise PathError(f"{path} is half a URI: write two slashes, or ./{path} for a local folder")
    expanded = os.path.expanduser(path)  # noqa: PTH111  # Path's raises RuntimeError
    if expanded.startswith("~"):
        user = path.partition("/")[0]
        raise PathError(
            f"{path}: there is no home folder {user}: write it in full, or ./{path} for a name "
            "that begins so"
        )
    # `..` stays: behind a link it means another folder
    full = expanded if expanded.startswith("/") else f"{Path.cwd()}/{expanded.removeprefix('./')}"
    return full.rstrip("/") or "/"


def ascii_name(text: str) -> str:
    """Return a stand-in for a text where names must be short and ASCII.

    A text that is so already stays; any other one becomes its ASCII letters and a digest.
    """
    if _PLAIN_NAME.fullmatch(text):
        return text
    letters = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:40]
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:10]
    return "-".join(filter(None, (letters, digest)))


def is_local(uri: str) -> bool:
    """Tell whether a path or URI lies in this machine's file system."""
    return isinstance(located(uri)[0], LocalFileSystem)


def has_credentials(uri: str) -> bool:
    """Tell whether a URI holds a password, key or token.

    Logs, configurations and manifests would then hold it too.
    """
    if "://" not in uri:
        return False
    parameters = parse_qsl(uri.partition("?")[2], keep_blank_values=True)
    return bool(_PASSWORD.search(uri)) or any(_SECRET.search(name) for name, _ in parameters)


def stays_below(path: str) -> bool:
    """Tell whether a path, joined to a folder, lies in it: it is relative and has no `..`."""
    return not {"", ".", ".."} & set(path.split("/")) and not set("\\\0") & set(path)


def below(uri: str, path: str) -> str:
    """Join a path to a folder or URI."""
    return f"{uri.rstrip('/')}/{path}"


def read_file(uri: str) -> bytes:
    """Return the content of a file or URI.

    Raises:
        OSError: it is missing, may not be read, or its store does not answer (UnreachableError).
        ValueError: the URI is malformed.
    """
    with reachable(uri):
        fs, path = located(uri)
        return fs.cat_file(path)


def read_part(uri: str, begin: int, end: int) -> bytes:
    """Return bytes of a file or URI, in one request; fewer where it ends before.

    Args:
        uri: file or URI.
        begin: first byte.
        end: byte behind the last one.

    Raises:
        OSError, ValueError: see `read_file`.
    """
    with reachable(uri):
        fs, path = located(uri)
        try:
            return fs.cat_file(path, start=begin, end=end)
        except FileNotFoundError:
            raise
        except Exception:
            # a store refuses what lies behind the end, each with an exception of its own
            if fs.size(path) > begin:
                raise
            return b""


def list_folder(uri: str) -> list[str]:
    """Return the names of what lies in a folder, sorted; none if it is not there.

    Raises:
        OSError: its store does not answer.
    """
    with reachable(uri):
        fs, path = located(uri)
        fs.invalidate_cache(path)
        found = fs.ls(path, detail=False) if fs.exists(path) else []
    return sorted(name.rstrip("/").rpartition("/")[2] for name in found)


def remove_file(uri: str) -> None:
    """Remove a file or an object.

    Raises:
        OSError: it is missing, or its store does not answer.
    """
    with reachable(uri):
        fs, path = located(uri)
        fs.rm_file(path)


def version_of(uri: str) -> str:
    """Return what changes when a file does: all that its file system tells of it, as text.

    That is the size, the time of the last change, the inode or the ETag, and more.

    Raises:
        OSError: see `read_file`.
        ValueError: the URI is malformed.
    """
    with reachable(uri):
        fs, path = located(uri)
        fs.invalidate_cache(path.rpartition("/")[0])  # of listings
        return repr(sorted(fs.info(path).items()))


def content_version(uri: str) -> str | None:
    """Return what changes with a file's content: its ETag, or its size and time of change.

    Returns:
        None if its file system tells neither, if it is no file, or if it has changed within the
        last seconds: a further change need not show in the time then.

    Raises:
        OSError: see `read_file`.
        ValueError: the URI is malformed.
    """
    with reachable(uri):
        fs, path = located(uri)
        if isinstance(fs, LocalFileSystem):
            found = Path(path).stat()
            settled = time.time() - found.st_mtime > SETTLED_S
            told = settled and stat.S_ISREG(found.st_mode)
            return f"{found.st_size} {found.st_mtime_ns}" if told else None
        fs.invalidate_cache(path.rpartition("/")[0])  # of listings
        info = fs.info(path)
    etag = next((info[name] for name in ("ETag", "etag", "md5Hash") if info.get(name)), None)
    return f"{info['size']} {etag}" if etag and info.get("type") == "file" else None


def put_file(uri: str, content: bytes) -> None:
    """Write a file so that every reader sees either the old content or the new.

    Raises: see `put_parts`.
    """
    put_parts(uri, [content])


def put_parts(uri: str, content: Iterable[bytes]) -> None:
    """Write a file of parts so that every reader sees either the old content or the new.

    Object stores work like this, with one request; on local disks a rename does it, and the parts
    need not be in memory together.

    Raises:
        OSError: it cannot be written; nothing is left of it.
        ValueError: the URI is malformed.
    """
    with reachable(uri):
        fs, path = located(uri)
        if not isinstance(fs, LocalFileSystem):
            fs.pipe_file(path, b"".join(content))
            return
        part = f"{path}.{uuid.uuid4().hex}{PART_SUFFIX}"  # two writers of one file do not meet
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            with fs.open(part, "wb") as file:
                file.writelines(content)
            Path(part).replace(path)  # never into a folder of this name
        except OSError as error:
            with contextlib.suppress(OSError):  # on a full disk the part takes up space
                fs.rm_file(part)
            # a failed write does not say where
            raise OSError(error.errno, error.strerror, path) from error
