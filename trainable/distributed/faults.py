"""What an error of a worker means: would it come again, or was it the storage's or a node's?"""

import contextlib
import re
import traceback
from collections.abc import Iterator
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
    """An error that would come again in any number of starts; its message is one line.

    Attributes:
        traceback: of the error itself, which does not survive the way to the driver.
    """

    traceback = ""


def is_permanent(error: BaseException) -> bool:
    """Tell whether an error would come again if the workers were started again.

    An error of a node, of the network between nodes, or of a storage would not.
    """
    # an actor or a node that is gone, or a worker that leaves because of a notice
    of_ray = any(kind.__module__.startswith("ray.") for kind in type(error).__mro__)
    if of_ray or isinstance(error, NODE_ERRORS):
        return False
    if isinstance(error, OSError):
        return isinstance(error, FILE_ERRORS)
    if type(error) is RuntimeError:
        return not OF_A_NODE.search(str(error))
    return isinstance(error, Exception)


@contextlib.contextmanager
def permanent_errors_named() -> Iterator[None]:
    """Turn an error that would come again into a PermanentError.

    Raises:
        PermanentError: such an error; its cause is the error itself.
    """
    try:
        yield
    except PermanentError:
        raise
    except Exception as error:
        if not is_permanent(error):
            raise
        named = PermanentError(in_one_line(error))
        named.traceback = "".join(traceback.format_exception(error))
        raise named from error


def in_one_line(error: BaseException) -> str:
    """Return what a user is told of an error: for one that is no user's, where it came from."""
    told = " ".join(str(error).split())
    if isinstance(error, ValueError | OSError):
        return told
    return f"{type(error).__name__}{f': {told}' if told else ''} ({_place(error)})"


def _place(error: BaseException) -> str:
    """Return the innermost line of this project that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT)]
    last = (own or list(frames))[-1]
    file = Path(last.filename)
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file.name
    return f"{shown}:{last.lineno}"
