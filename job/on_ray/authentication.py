"""Ray's token authentication: local runs leave no token behind, and refusals are one line."""

import os
import secrets

TOKEN, TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"  # Ray's variables


def keep_no_token() -> None:
    """Give a local Ray a token of its own, which ends with this process.

    Ray would write one into the home directory, for which clusters that are started there later ask
    everybody; and some home directories cannot be written.
    """
    if not (os.environ.get(TOKEN) or os.environ.get(TOKEN_FILE)):
        os.environ[TOKEN] = secrets.token_hex(32)


def wants_a_token(cluster: str, error: Exception) -> str:
    """Return what to do where a cluster does not know us.

    Args:
        cluster: which cluster.
        error: what Ray has raised.
    """
    reason = " ".join(str(getattr(error, "message", error)).split()).rstrip(".")
    return (
        f"{cluster} asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file "
        f"with it (docs/security.md; Ray says: {reason})"
    )
