"""Where weights come from: published files, a run or checkpoint of this trainer, or the hub."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi

from data.files import is_local, is_uri, located, reachable
from trainable.run.format import CHECKSUMS
from trainable.run.storage import BEST, checkpoints, fetched, is_here, resolve
from trainable.weights.hub import download, look_up
from trainable.weights.published import CALLED, WEIGHTS, named_step, needed

NEITHER = (
    "holds neither published weights (G_*, D_*, DUR_*, WD_* .pth or .safetensors) nor a run or "
    "checkpoint of this trainer"
)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@contextlib.contextmanager
def folder_of(source: str, endpoint: str | None, key: str = "train.init_from") -> Iterator[Path]:
    """Give the files of a source as a local folder: published ones, or a checkpoint's.

    Args:
        source: see `warm_start`.
        endpoint: mirror of the hub.
        key: key or option that names the source, for messages.

    Raises:
        ValueError: there are none.
    """
    if is_of_hub(source):
        yield download(source, needed, endpoint, key)
        return

    fs, root = located(source)
    files = _published_files(source)
    if not files:
        with fetched(_checkpoint_of(source)) as folder:
            yield folder
    elif is_local(source):
        yield Path(root)
    else:
        with tempfile.TemporaryDirectory() as copy:
            for file in files:
                fs.get_file(f"{root}/{file}", f"{copy}/{file}")
            yield Path(copy)


def look_for(source: str, endpoint: str | None) -> int:
    """Refuse a source of `warm_start` that holds no weights, without reading them.

    Returns:
        The step that the name of its generator's file tells; 0 if none does.

    Raises:
        ValueError: it holds none, or is nowhere; names the key.
        OSError: its store or the hub does not answer.
    """
    try:
        if is_of_hub(source):
            return named_step(look_up(HfApi(endpoint=endpoint), source, needed)[1])
        files = _published_files(source)
        if not files and not (is_uri(source) and _has_checkpoints(source)):
            _checkpoint_of(source)
        return named_step(files)
    except ValueError as error:
        raise ValueError(f"train.init_from {source}: {error}") from error


def is_of_hub(source: str) -> bool:
    """Tell whether a source names a model of the hub; a folder of the same name wins over it."""
    return not is_uri(source) and not is_here(source) and bool(HUB_NAME.fullmatch(source))


def is_published(source: str) -> bool:
    """Tell whether a source is of published files, rather than a run or checkpoint.

    Raises:
        ValueError: it is a file, or a folder of weights under names that are not read; names it.
        OSError: its store does not answer.
    """
    return is_of_hub(source) or bool(_published_files(source))


def _published_files(source: str) -> list[str]:
    """Return the names of the published files in a folder or URI that would be read.

    Raises:
        ValueError: it is a file itself, or holds weights under other names alone.
    """
    fs, root = located(source)
    with reachable(source):
        is_file = bool(WEIGHTS.search(root)) and fs.isfile(root)
        paths = fs.ls(root, detail=False) if fs.isdir(root) else []
    if is_file:
        raise ValueError(f"{source} is a file: give the folder that it lies in")
    names = sorted(path.rpartition("/")[2] for path in paths)
    files, others = needed(names), [name for name in names if WEIGHTS.search(name)]
    if others and not files and CHECKSUMS not in names:
        raise ValueError(
            f"{source} {NEITHER}: {others[0]} is no name of a network's file, {CALLED}"
        )
    return files


def _has_checkpoints(uri: str) -> bool:
    """Tell whether a URI holds checkpoints, or is one; they are not read, as that may take long."""
    fs, root = located(uri)
    run = uri.rstrip("/").removesuffix(f"/{BEST}")
    with reachable(uri):
        return fs.exists(f"{root}/{CHECKSUMS}") or bool(checkpoints(run))


def _checkpoint_of(source: str) -> str:
    try:
        return resolve(source)
    except ValueError as error:
        raise ValueError(f"{NEITHER}: {error}") from error
