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
from trainable.weights.published import named_step, needed

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
        OSError: its store does not answer.
    """
    return is_of_hub(source) or bool(_published_files(source))


def _published_files(source: str) -> list[str]:
    """Return the names of the published files in a folder or URI that would be read."""
    fs, root = located(source)
    with reachable(source):
        paths = fs.ls(root, detail=False) if fs.isdir(root) else []
    return needed(path.rpartition("/")[2] for path in paths)


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
        raise ValueError(
            "holds neither published weights (G_*, D_*, DUR_*, WD_* .pth or .safetensors) nor a "
            f"run or checkpoint of this trainer: {error}"
        ) from error
