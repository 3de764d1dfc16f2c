"""Hands a job to a cluster's dashboard."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from job.on_ray.authentication import wants_a_token
from job.options.submit import ADDRESSES, DASHBOARD


def connect(address: str) -> JobSubmissionClient:
    """Return a client of a cluster's dashboard.

    Raises:
        ValueError: nothing answers there, it is no dashboard's address, or the cluster asks for its
            token.
    """
    if address.startswith("ray://"):
        raise ValueError(
            f"{address} is for Ray's client, through which no job is submitted: give --address "
            f"with the dashboard's address, such as {DASHBOARD}"
        )
    try:
        with no_other_address():
            return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ValueError(wants_a_token(f"the cluster at {address}", error)) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"no cluster answers at {address}: leave `ray dashboard cluster.yaml` open in another "
            f"terminal, or give --address ({error})"
        ) from error


@contextlib.contextmanager
def no_other_address() -> Iterator[None]:
    """Hide the variables that Ray would take an address from rather than from what it is given."""
    hidden = {name: os.environ.pop(name) for name in ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def submitted(
    client: JobSubmissionClient,
    entrypoint: str,
    runtime_env: dict[str, Any],
    submission_id: str | None,
) -> str:
    """Submit a job; return its id.

    Raises:
        ValueError: the cluster does not take it; shows no value of the job's environment.
    """
    named: dict[str, Any] = {} if submission_id is None else {"submission_id": submission_id}
    try:
        return client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, **named)
    except AuthenticationError as error:
        raise ValueError(wants_a_token("the cluster", error)) from None
    except (ConnectionError, RuntimeError) as error:
        told = str(error)
    if submission_id is not None and "already exists" in told:
        raise ValueError(
            f"--submission-id {submission_id}: the cluster has a job of this id: give another one"
        )
    # Ray's message may hold a traceback of the head, and with it what was sent
    for value in filter(None, runtime_env["env_vars"].values()):
        told = told.replace(value, "***")
    last = [line.strip() for line in told.replace("\\n", "\n").splitlines() if line.strip()][-1:]
    raise ValueError(f"the cluster does not take the job: {''.join(last)}")
