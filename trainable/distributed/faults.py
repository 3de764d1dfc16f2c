"""What an error of a worker means: would it come again, or was it the storage's or a node's?"""

import re
import traceback
from pathlib import Path

import torch

from data.files import UnreachableError

# what gloo, NCCL and CUDA raise as a plain RuntimeError
OF_A_NODE = re.compile(
    r"gloo|nccl|cuda|cudnn|cublas|connection|timed? ?out|socket|broken pipe|store", re.IGNORECASE
)
NODE_ERRORS = (
    torch.distributed.DistError,
    torch.OutOfMemoryError,
    MemoryError,
    ConnectionError,
    TimeoutError,
    UnreachableError,
)
# of these alone, no waiting cures
FILE_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
ROOT = Path(__file__).resolve().parents[2]


class PermanentError(RuntimeError):
    """An error that would come again in any number of starts; its message is one line."""


def is_permanent(error: BaseException) -> bool:
    """Tell whether an error would come again if the workers were started again.

    An error of a node, of the network between nodes, or of a storage would not.
    """
    of_ray = type(error).__module__.startswith("ray.")  # an actor or a node that is gone
    if of_ray or isinstance(error, NODE_ERRORS):
        return False
    if isinstance(error, OSError):
        return isinstance(error, FILE_ERRORS)
    if type(error) is RuntimeError:
        return not OF_A_NODE.search(str(error))
    return isinstance(error, Exception)


def in_one_line(error: BaseException, log_name: str) -> str:
    """Return what a user is told of an error.

    Args:
        error: what was raised.
        log_name: file of the run that has the whole traceback.
    """
    told = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError):
        return told
    place = _place(error)
    kind = type(error).__name__
    return f"{kind}{f': {told}' if told else ''} ({place}; the traceback is in {log_name})"


def _place(error: BaseException) -> str:
    """Return the innermost line of this project that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT / "trainable")]
    own += [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT / "data")]
    if not own:
        return "no line of this project"
    last = own[-1]
    return f"{Path(last.filename).relative_to(ROOT)}:{last.lineno}"
