"""Files of tensors: read without running what comes with them, written without a copy."""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

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
    """What a torch file holds, of tensors and plain values alone.

    Raises:
        ValueError: it is damaged, or holds pickled code, which is not run.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:  # of the storage: another attempt may succeed
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        code = (
            re.search(r"GLOBAL (\S+)", str(error))
            if isinstance(error, pickle.UnpicklingError)
            else None
        )
        reason = (
            f"holds pickled code ({code[1]}), which is not run"
            if code
            else "is truncated, damaged or no torch file"
        )
        raise ValueError(f"{path.name} is refused: it {reason}") from error


def write_safetensors(tensors: Mapping[str, Tensor], file: Writable) -> None:
    """The library's own format (a header's length, the header, the bytes), without its copies that hold up Python."""
    header, end = {}, 0
    for key, t in tensors.items():
        begin, end = end, end + t.nbytes
        header[key] = {
            "dtype": DTYPES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for t in tensors.values():
        file.write(t.contiguous().view(-1).view(torch.uint8).numpy().data)
