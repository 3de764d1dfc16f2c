"""Files of tensors: read without running what comes with them, written without a copy."""

import contextlib
import json
import os
import pickle  # noqa: TID251  # for the name of torch's error
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from data.files import located, reachable

DTYPES = {  # their names in safetensors
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Writable(Protocol):
    """What bytes are written to."""

    def write(self, content: Any, /) -> int:
        """Write bytes; return their number."""


def load_tensors(path: Path) -> Any:
    """Return what a torch file holds: tensors and plain values alone.

    Raises:
        ValueError: it is damaged, or holds pickled code, which is not run.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:  # of the storage: another attempt may succeed
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path.name} is refused: it {_fault_of(error)}") from error


def _fault_of(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            return f"holds pickled code ({code[1]}), which is not run"
    return "is truncated, damaged or no torch file"


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is damaged.
    """
    with utf_8_name(path) as name:
        return load_file(name)


@contextlib.contextmanager
def utf_8_name(path: Path) -> Iterator[str]:
    """Give a name of a file whose bytes are UTF-8 in any locale, as safetensors wants them."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        yield str(path)


def read_shapes(uri: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file on the meta device: their shapes alone are read.

    Args:
        uri: path or URI of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    with reachable(uri):
        fs, path = located(uri)
        length = int.from_bytes(fs.cat_file(path, start=0, end=8), "little")
        header = json.loads(fs.cat_file(path, start=8, end=8 + length))
    header.pop("__metadata__", None)
    return {key: torch.empty(entry["shape"], device="meta") for key, entry in header.items()}


def write_safetensors(tensors: Mapping[str, Tensor], file: Writable) -> None:
    """Write tensors in the format of the safetensors library, without its copies.

    The copies hold up Python, and so the training beside. The format: the header's length, the
    header, the bytes of each tensor.
    """
    header = {}
    end = 0
    for key, t in tensors.items():
        begin = end
        end += t.nbytes
        header[key] = {
            "dtype": DTYPES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [begin, end],
        }

    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    file.write(len(text).to_bytes(8, "little") + text)
    for t in tensors.values():
        file.write(t.contiguous().view(-1).view(torch.uint8).numpy().data)
