"""Files of a model on the hub, in its local cache.

Each is fetched once, continued where a download broke off, and checked by its hash.
"""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from data.models import HubUnreachableError, megabytes, tell, unreachable

log = logging.getLogger("bert_vits2_ray")
KEY = "train.init_from"


def download(
    name: str,
    wanted: Callable[[list[str]], list[str]],
    endpoint: str | None = None,
    key: str = KEY,
) -> Path:
    """Fetch files of a model; the access token is HF_TOKEN of the environment.

    Args:
        name: `user/model` or `user/model@revision`.
        wanted: picks files out of the names of all.
        endpoint: address of a mirror; None: HF_ENDPOINT of the environment, or the hub itself.
        key: key or option that names the model, for messages.

    Returns:
        The folder in the local cache that holds them.

    Raises:
        ValueError: there is no such model or revision, the token may not read it, nothing in it is
            wanted, or a file keeps another hash than the hub states.
        OSError: the network fails.
    """
    api = HfApi(endpoint=endpoint)
    repo = name.partition("@")[0]
    info, files = look_up(api, name, wanted, key)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    for file in files:
        # by the commit: all files are of one revision, also if the model changes meanwhile
        if try_to_load_from_cache(repo, file, revision=info.sha) is None:
            tell(f"downloads {file} of {name}, {megabytes(siblings[file].size or 0)}")
        path = Path(api.hf_hub_download(repo, file, revision=info.sha))
        if intact(path, siblings[file]):
            continue
        log.warning(
            "%s of %s differs from the hash that the hub states, and is fetched again", file, name
        )
        path = Path(api.hf_hub_download(repo, file, revision=info.sha, force_download=True))
        if not intact(path, siblings[file]):
            raise ValueError(
                f"{file} of {name} differs from the hash that {api.endpoint} states: "
                "use another mirror"
            )
    tell(f"{name} is here, at revision {info.sha}")
    return path.parent


def look_up(
    api: HfApi, name: str, wanted: Callable[[list[str]], list[str]], key: str = KEY
) -> tuple[ModelInfo, list[str]]:
    """Return what the hub states about a model, and which of its files are wanted.

    Args:
        api: the hub, or its mirror.
        name: `user/model` or `user/model@revision`.
        wanted: picks files out of the names of all.
        key: see `download`.

    Raises:
        ValueError: there is no such model or revision, the token may not read it, or nothing in it
            is wanted.
        HubUnreachableError: the network fails.
    """
    repo, _, revision = name.partition("@")
    info = _describe(api, repo, revision or None, name, key)
    names = [sibling.rfilename for sibling in info.siblings or []]
    files = wanted(names)
    if not files:
        present = ", ".join(names) or "none"
        raise ValueError(f"{name} on {api.endpoint} has no file that is wanted, only {present}")
    return info, files


def _describe(api: HfApi, repo: str, revision: str | None, name: str, key: str) -> ModelInfo:
    """Return what the hub states about a model and its files.

    Raises:
        ValueError: there is no such model or revision, or the token may not read it.
        HubUnreachableError: the network fails.
    """
    try:
        return api.model_info(repo, revision=revision, files_metadata=True)
    except GatedRepoError as error:
        raise ValueError(
            f"{name} on {api.endpoint} asks for an access token that may read it: set HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ValueError(
            f"{name} is no folder here, and no model (or revision) on {api.endpoint} that this "
            "access token may read: check the name, or set HF_TOKEN"
        ) from error
    except Exception as error:  # of the network, by the names of several libraries
        message = unreachable(key, name, api.endpoint, error)
        raise HubUnreachableError(message) from error


def intact(path: Path, sibling: RepoSibling) -> bool:
    """Tell whether a file has the hash that the hub states.

    It is the sha256 of a large file, git's blob hash of a small one.
    """
    with path.open("rb") as file:
        if sibling.lfs is not None:
            return hashlib.file_digest(file, "sha256").hexdigest() == sibling.lfs.sha256
        content = file.read()
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == sibling.blob_id
