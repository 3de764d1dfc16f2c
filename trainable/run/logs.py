"""The workers' logs: on the console, and in `logs/rank-<r>.log` of the run."""

import contextlib
import logging
import os
import platform
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from data.files import below, put_file, read_file

log = logging.getLogger("bert_vits2_ray")


def log_path(folder: str, rank: int) -> Path:
    """Where a rank writes its log: in the run's folder, or for an object store on this machine, to be uploaded."""
    local = (
        Path(folder)
        if "://" not in folder
        else Path(tempfile.gettempdir()) / "bert-vits2-ray" / quote(folder, "")
    )
    return local / "logs" / f"rank-{rank}.log"


def earlier_log(folder: str, rank: int) -> Path:
    """Where a rank writes its log, with what it wrote on other machines: an object store has that.

    Raises:
        OSError: the store is out of reach.
    """
    path = log_path(folder, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    if "://" in folder:
        with contextlib.suppress(FileNotFoundError):
            stored = read_file(below(folder, f"logs/{path.name}"))
            # else it has lines more
            if not (path.exists() and path.read_bytes().startswith(stored)):
                path.write_bytes(stored)
    return path


def start_logging(folder: str, rank: int) -> Path:
    """Log to the console and to `logs/rank-<r>.log` of the run, behind what it holds; returns the file.

    Raises:
        OSError: the file cannot be read or written.
    """
    path = earlier_log(folder, rank)
    handlers: list[logging.Handler] = [logging.FileHandler(path)]
    if rank == 0:
        handlers.append(logging.StreamHandler(sys.stdout))
    for handler in handlers:
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(message)s")
        )
    log.handlers, log.propagate = handlers, False
    log.setLevel(logging.INFO)
    log.info("pid %d on %s", os.getpid(), platform.node())
    return path


def upload_log(path: Path, folder: str) -> None:
    """Copy the log to the run's folder where that is no local disk.

    Raises:
        OSError: the store is out of reach.
    """
    if "://" in folder:
        put_file(below(folder, f"logs/{path.name}"), path.read_bytes())
