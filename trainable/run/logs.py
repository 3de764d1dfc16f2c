"""The workers' logs: on the console, and in the run's folder."""

import contextlib
import io
import logging
import os
import platform
import sys
import tempfile
from pathlib import Path

from data.files import ascii_name, below, is_local, located, put_file, read_file
from trainable.run.format import LOGS, log_name

log = logging.getLogger("bert_vits2_ray")


def log_path(folder: str, rank: int) -> Path:
    """Return the local file that a rank writes its log to.

    It lies in the run's folder, or for an object store on this machine, to be uploaded.
    """
    if is_local(folder):
        local = Path(located(folder)[1])
    else:
        local = Path(tempfile.gettempdir()) / "bert-vits2-ray" / ascii_name(folder)
    return local / log_name(rank)


def earlier_log(folder: str, rank: int) -> Path:
    """Return the local file of a rank's log, with what the rank wrote on other machines.

    The object store has what was written there.

    Raises:
        OSError: the store is out of reach.
    """
    path = log_path(folder, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(folder):
        with contextlib.suppress(FileNotFoundError):
            stored = read_file(below(folder, log_name(rank)))
            # a log that begins so has more lines than were uploaded
            if not (path.exists() and path.read_bytes().startswith(stored)):
                path.write_bytes(stored)
    return path


def start_logging(folder: str, rank: int) -> Path:
    """Log to the end of the rank's file, and on rank 0 to the console; return the file.

    Details (DEBUG) are in the file alone.

    Raises:
        OSError: the file cannot be read or written.
    """
    path = earlier_log(folder, rank)
    handlers: list[logging.Handler] = [logging.FileHandler(path, encoding="utf-8")]
    if rank == 0:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # names that this locale does not have are shown escaped
            sys.stdout.reconfigure(errors="backslashreplace")
        shown = logging.StreamHandler(sys.stdout)
        shown.setLevel(logging.INFO)
        handlers.append(shown)

    line = logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(message)s")
    for handler in handlers:
        handler.setFormatter(line)

    log.handlers = handlers
    log.propagate = False
    log.setLevel(logging.DEBUG)
    log.info("pid %d on %s", os.getpid(), platform.node())
    return path


def upload_log(path: Path, folder: str) -> None:
    """Copy a log to the run's folder unless it lies there, on a local disk.

    Raises:
        OSError: the store is out of reach.
    """
    if not is_local(folder):
        put_file(below(folder, f"{LOGS}/{path.name}"), path.read_bytes())
