"""Models by folder or hub name: whether they can be loaded, found out before anything does."""

import contextlib
import logging
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RANDOM = "random"  # a tiny model, made where it is needed
ZEROS = "zeros"  # the same of BERT, whose features are all 0
MADE_HERE = (RANDOM, ZEROS)
CONFIG = "config.json"  # every model of transformers has one
WEIGHTS = re.compile(r"(pytorch_model|model)[\w.-]*\.(bin|safetensors)")
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
ANSWER_WITHIN_S = 10.0
log = logging.getLogger("bert_vits2_ray")


class HubUnreachableError(OSError):
    """The hub does not answer, which says nothing about the models on it."""


@dataclass(frozen=True)
class Found:
    """Where a model is.

    Attributes:
        where: `made here` for MADE_HERE.
        size: bytes that are still to be downloaded; 0 unless it is on the hub.
    """

    where: Literal["made here", "folder", "cache", "hub"]
    size: int = 0


def find_model(key: str, name: str, revision: str | None = None) -> Found:
    """Find a model of transformers, without loading it.

    Args:
        key: configuration key that names it, for messages.
        name: folder, name on the hub, or one of MADE_HERE.
        revision: hub revision; None: main.

    Raises:
        ValueError: there is no such model; names the key.
        HubUnreachableError: it is no folder and not in the cache, and the hub does not answer.
    """
    if name in MADE_HERE:
        return Found("made here")
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_folder(key, folder)
        return Found("folder")
    if folder.exists():
        raise ValueError(f"{key} is {name}: a file, where a model's folder is wanted")
    if not HUB_NAME.fullmatch(name):
        raise ValueError(f"{key} is {name}: there is no such folder, and it is no name on the hub")
    if is_cached(name, revision):
        return Found("cache")
    return Found("hub", size_on_hub(key, name, revision))


@contextlib.contextmanager
def download_told(name: str, revision: str | None = None) -> Iterator[None]:
    """Say before and after the block, which loads a model, that it is downloaded, and how large.

    Args:
        name: folder, name on the hub, or one of MADE_HERE.
        revision: hub revision; None: main.
    """
    size = _to_download(name, revision)
    if size:
        tell(f"downloads {name}, {megabytes(size)}")
    begun = time.monotonic()
    yield
    if size:
        tell(f"{name} is downloaded, {time.monotonic() - begun:.0f} s")


def _to_download(name: str, revision: str | None) -> int:
    """Return the bytes that loading a model downloads; 0 if the hub does not say."""
    try:
        return find_model("model", name, revision).size
    except (ValueError, HubUnreachableError):
        return 0  # whoever loads it says what is wrong


def megabytes(size: int) -> str:
    """Return a size in bytes as people read it."""
    return f"{size / 1e6:,.1f} MB"


def tell(line: str) -> None:
    """Say a line where people look: in a worker's log, or else on standard error."""
    if log.handlers:
        log.info("%s", line)
    else:
        print(line, file=sys.stderr, flush=True)


def check_folder(key: str, folder: Path) -> None:
    """Refuse a folder that holds no model.

    Raises:
        ValueError: names the key and what is missing.
    """
    files = [path.name for path in folder.iterdir()]
    if CONFIG not in files:
        raise ValueError(f"{key} is {folder}: the folder has no {CONFIG}, so it is no model's")
    if not any(map(WEIGHTS.match, files)):
        raise ValueError(
            f"{key} is {folder}: the folder has no weights (model.safetensors or pytorch_model.bin)"
        )


def is_cached(name: str, revision: str | None) -> bool:
    """Tell whether a model of the hub lies in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, CONFIG, revision=revision or "main")
    return isinstance(found, str) and any(
        WEIGHTS.match(path.name) for path in Path(found).parent.iterdir()
    )


def size_on_hub(key: str, name: str, revision: str | None = None) -> int:
    """Return the bytes of a model's weights on the hub.

    Raises:
        ValueError: there is no such model or revision, or the token may not read it.
        HubUnreachableError: the hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi()
    shown = f"{name}@{revision}" if revision else name
    try:
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=ANSWER_WITHIN_S)
    except GatedRepoError as error:
        raise ValueError(
            f"{key} is {shown}: {api.endpoint} asks for an access token that may read it: set "
            "HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise ValueError(
            f"{key} is {shown}: there is no such folder here, and no such model or revision on "
            f"{api.endpoint} that this access token may read"
        ) from error
    except Exception as error:  # of the network, by the names of several libraries
        raise HubUnreachableError(unreachable(key, shown, api.endpoint, error)) from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    return weights_to_load(sizes)


def weights_to_load(sizes: dict[str, int]) -> int:
    """Return the bytes of the weights that transformers would load: safetensors if there are any.

    Args:
        sizes: file -> bytes.
    """
    weights = {file: size for file, size in sizes.items() if WEIGHTS.fullmatch(file)}
    safe = {file: size for file, size in weights.items() if file.endswith(".safetensors")}
    return sum((safe or weights).values())


def unreachable(key: str, name: str, endpoint: str, error: Exception) -> str:
    """Return the line on a model that is not here, while the hub does not answer."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"{key} is {name}: there is no such folder here, it is not in the cache, and the hub "
        f"{endpoint} does not answer ({reason}): correct the path, or download the model first"
    )
