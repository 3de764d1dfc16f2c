"""A folder of files on its way to the hub."""

import re
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from trainable.weights.sources import HUB_NAME

OPTION = "--push"


def check_push(repo: str) -> None:
    """Refuse a name that is none of the hub's, and a machine without an access token.

    Raises:
        ValueError: names the option.
    """
    if not HUB_NAME.fullmatch(repo) or "@" in repo:
        raise ValueError(f"{OPTION} is {repo}: give USER/MODEL, a name on the hub")
    if not get_token():
        raise ValueError(f"{OPTION} {repo} needs an access token that may write: set HF_TOKEN")


def push(folder: Path, repo: str, kept: str) -> str:
    """Send all files of a folder to a model on the hub, in one commit.

    A model that is not there yet is created, and nobody else sees it until its owner says so. The
    access token is that of the environment.

    Args:
        folder: local folder.
        repo: USER/MODEL.
        kept: where the same files stay, for messages.

    Returns:
        The model's address.

    Raises:
        ValueError: the hub refuses it.
        OSError: the hub does not answer.
    """
    api = HfApi()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    additions = [CommitOperationAdd(*pair) for pair in zip(names, files, strict=True)]
    try:
        address = api.create_repo(repo, private=True, exist_ok=True)
        api.create_commit(repo, additions, commit_message="A voice of bert-vits2-ray")
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status not in (400, 401, 403, 404, 409, 422):
            raise OSError(_failed(repo, api.endpoint, error, kept)) from error
        raise ValueError(
            f"{_failed(repo, api.endpoint, error, kept)} HF_TOKEN must be a token that may write "
            "there"
        ) from error
    except ValueError as error:  # of the card, or of the storage behind the hub
        raise ValueError(_failed(repo, api.endpoint, error, kept)) from error
    except Exception as error:  # of the network, by the names of several libraries
        raise OSError(_failed(repo, api.endpoint, error, kept)) from error
    return str(address)


def _failed(repo: str, endpoint: str, error: Exception, kept: str) -> str:
    """Return the line on a push that failed; it has no secret, which is in headers alone."""
    reason = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return (
        f"{OPTION} {repo}: {endpoint} has not taken it ({reason}). The files are in {kept}: "
        f"`hf upload {repo} {kept}` sends them."
    )
