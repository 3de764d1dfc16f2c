"""Arrow tables that the processes of a node share: one makes a file of them, all map it.

The files lie in a folder of the user's own in the system's temporary folder (`TMPDIR`). Only the
newest few sets are kept. A file begins with its length and checksum, which every process verifies,
so that one that a crash left half written is made again. Where no file can be written, a process
holds the tables itself.
"""

import contextlib
import fcntl
import logging
import os
import stat
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import pyarrow as pa

from data.files import PART_SUFFIX

log = logging.getLogger("bert_vits2_ray")
SETS_KEPT = 4
SUFFIX = ".arrow"
GIB = 2**30
_BLOCK = 1 << 20  # bytes that are checked together
_HEAD = 64  # bytes before the tables: length and checksum of what follows, as text


def node_tables(
    key: str, names: tuple[str, ...], make: Callable[[], Mapping[str, pa.Table]]
) -> dict[str, pa.Table]:
    """Return tables that are made once per node, and mapped by all of its processes.

    Args:
        key: names the set; other content has another key.
        names: names of the tables.
        make: makes the tables where no process has done so yet; its errors are raised.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = own_folder()
            paths = {name: folder / f"{key}.{name}{SUFFIX}" for name in names}
            if found := _mapped(paths):
                return found
            stack.enter_context(_locked(folder))
            if found := _mapped(paths):  # another process has made it meanwhile
                return found
        except OSError as error:
            return _own(make(), error)
        made = make()
        try:
            for name, path in paths.items():
                _write(path, made[name])
            _clean(folder)
            return _mapped(paths) or _own(made, OSError("what was written is not what is read"))
        except OSError as error:
            return _own(made, error)


def own_folder() -> Path:
    """Return the folder of this user's files, which nobody else can write to.

    Raises:
        OSError: it cannot be made, or is somebody else's.
    """
    folder = Path(tempfile.gettempdir()) / f"bert_vits2_ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is no folder of this user's alone")
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time make files; the lock ends with its process."""
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _mapped(paths: Mapping[str, Path]) -> dict[str, pa.Table] | None:
    """Return the tables of files, which stay on disk until they are looked at; None to make them.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        if not all(map(_intact, paths.values())):
            return None
        tables = {name: _map(path) for name, path in paths.items()}
    except FileNotFoundError:
        return None
    for path in paths.values():
        with contextlib.suppress(OSError):  # of another's folder: used now, says `_clean`
            os.utime(path)
    return tables


def _map(path: Path) -> pa.Table:
    content = pa.memory_map(str(path)).read_buffer()
    return pa.ipc.open_stream(content.slice(_HEAD)).read_all()


def _intact(path: Path) -> bool:
    """Tell whether a file holds what was written. Nothing of it stays in this process's memory."""
    with path.open("rb", buffering=0) as file:
        head = file.read(_HEAD)
        return head == _head_of(file)


def _head_of(file: IO[bytes]) -> bytes:
    """Return what a file is to begin with, by the rest of it."""
    length = checksum = 0
    while block := file.read(_BLOCK):
        length += len(block)
        checksum = zlib.crc32(block, checksum)
    return f"bert_vits2_ray {length} {checksum:08x}\n".encode().ljust(_HEAD)


def _write(path: Path, table: pa.Table) -> None:
    """Write a table under another name, then rename it.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART_SUFFIX}")
    try:
        with part.open("wb+") as file:
            file.write(bytes(_HEAD))
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            file.seek(_HEAD)
            head = _head_of(file)
            file.seek(0)
            file.write(head)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _clean(folder: Path) -> None:
    """Remove what killed processes have left half written, and all but the sets used last.

    To be called by who holds the lock: so nobody writes. Who has a file mapped keeps it.
    """
    for part in folder.glob(f"*{PART_SUFFIX}"):
        part.unlink(missing_ok=True)
    sets: dict[str, list[Path]] = {}
    for path in folder.glob(f"*{SUFFIX}"):
        sets.setdefault(path.name.partition(".")[0], []).append(path)
    ages = {key: max(path.stat().st_mtime for path in paths) for key, paths in sets.items()}
    for key in sorted(ages, key=ages.__getitem__)[:-SETS_KEPT]:
        for path in sets[key]:
            path.unlink(missing_ok=True)


def _own(tables: Mapping[str, pa.Table], error: OSError) -> dict[str, pa.Table]:
    """Return tables that this process holds alone, and say why."""
    log.warning(
        "this process holds %.2f GiB of the manifest itself, as its node's processes cannot share "
        "a file (%s): set TMPDIR to a folder with room that can be written",
        sum(table.nbytes for table in tables.values()) / GIB,
        error,
    )
    return dict(tables)
