"""Run a command on a cluster: `python -m job.submit -- job.train --config C ...`.

It uploads the code, the presets and the files of settings that the command names, shows the job's
output, and ends as the job does. The job outlives this terminal.

Exit status: 0 if the job succeeded (with --no-wait, if the cluster has taken it), 1 if it failed or
was stopped, 2 if it could not be submitted, 130 if this terminal has left the job (Ctrl-C, or a
broken connection) and it continues.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import logging
import os
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from job.on_ray.authentication import wants_a_token
from job.on_ray.upload import staged
from job.settings.cli import Arguments, run
from job.settings.keys import did_you_mean

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = "http://127.0.0.1:8265"  # where `ray dashboard cluster.yaml` leads
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray's variables
INTERRUPTED = 130  # status that shells give to a command ended by Ctrl-C
ENDS_WITHIN_S = 30  # from the end of a job's output to its status
# `ray job stop` gives a job so long after SIGTERM, by default three: a step, a save, its last lines
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_WITHIN_S = "120"


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    check_module(args.module)
    env = environment(args.env)
    check_id(args.submission_id)
    # it would tell of each upload
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="bert-vits2-ray-") as folder:
        arguments = staged(ROOT, args.arguments, Path(folder))
        client = connect(args.address)
        entrypoint = shlex.join(["python", "-m", args.module, *arguments])
        runtime_env = {"working_dir": folder, "env_vars": env}
        job = submitted(client, entrypoint, runtime_env, args.submission_id)
    print(f"job {job}: {entrypoint}", flush=True)
    if args.no_wait:
        print(how_to_continue(args.address, job), flush=True)
        return 0
    return followed(client, args.address, job)


def followed(client: JobSubmissionClient, address: str, job: str) -> int:
    """Show a job's output until it ends; return the command's exit status."""
    # Ctrl-C or a broken connection ends only the display, not the job
    try:
        asyncio.run(show_output(client, job))
        status = ended(client, job)
    except (KeyboardInterrupt, RuntimeError) as error:
        reason = f" ({error})" if str(error) else ""
        print(f"\nThe job continues without this terminal{reason}.", flush=True)
        print(how_to_continue(address, job), flush=True)
        return INTERRUPTED
    print(f"job {job}: {status.value.lower()}")
    return 0 if status is JobStatus.SUCCEEDED else 1


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.submit", "Run a command of this project on a cluster.")
    address = next(filter(None, map(os.environ.get, ADDRESSES)), DASHBOARD)
    made.add_argument("--address", default=address, help="address of the cluster's dashboard")
    made.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="variable of the job's environment; without =VALUE it has its value of here",
    )
    made.add_argument("--submission-id", help="the job's id; default: Ray makes one")
    made.add_argument("--no-wait", action="store_true", help="end when the job is submitted")
    made.add_argument("module", help="job.train, job.prepare, job.doctor, ...; put -- before it")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the module")
    return made


def environment(given: Sequence[str]) -> dict[str, str]:
    """Return the variables that a job gets, with time to end when it is stopped.

    Args:
        given: NAME or NAME=VALUE.

    Raises:
        ValueError: no name, or a variable that is not set here; shows no value.
    """
    env = {STOP_WAIT: os.environ.get(STOP_WAIT, STOP_WITHIN_S)}
    for each in given:
        name, equals, value = each.partition("=")
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
            raise ValueError("--env takes NAME or NAME=VALUE, with a name of letters, digits and _")
        if not equals and name not in os.environ:
            raise ValueError(f"--env {name}: it is not set here: set it, or give {name}=VALUE")
        env[name] = value if equals else os.environ[name]
    return env


def check_id(submission_id: str | None) -> None:
    """Refuse an id that could not stand in the address of a job.

    Raises:
        ValueError: tells of what an id consists.
    """
    if submission_id is not None and re.fullmatch(r"[A-Za-z0-9._-]+", submission_id) is None:
        raise ValueError(
            f"--submission-id is {submission_id!r}: give letters, digits, dots, - and _ alone"
        )


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


def check_module(module: str) -> None:
    """Refuse what the cluster could not run: nothing of this project, and no installed module.

    Raises:
        ValueError: tells which command may have been meant.
    """
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # its package is none, or it is no name
        found = None
    if found is None:
        commands = [f"job.{path.stem}" for path in (ROOT / "job").glob("[!_]*.py")]
        near = did_you_mean(module, [*commands, "tuning.sweep"])
        raise ValueError(f"there is no module {module!r}{near or ': give one such as job.train'}")


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


async def show_output(client: JobSubmissionClient, job: str) -> None:
    """Print a job's output as it comes, until the job ends.

    Raises:
        RuntimeError: the connection broke.
    """
    async for lines in client.tail_job_logs(job):
        print(lines, end="", flush=True)


def ended(client: JobSubmissionClient, job: str) -> JobStatus:
    """Return the status of a job whose output has ended.

    Raises:
        RuntimeError: the job has not ended.
    """
    deadline = time.monotonic() + ENDS_WITHIN_S
    while not (status := client.get_job_status(job)).is_terminal():
        if time.monotonic() > deadline:
            raise RuntimeError("its output has stopped")
        time.sleep(0.2)
    return status


def how_to_continue(address: str, job: str) -> str:
    """Return what to type to follow and to stop a job."""
    return (
        f"  follow it:  ray job logs --follow --address {address} {job}\n"
        f"  stop it:    ray job stop --address {address} {job}"
    )


if __name__ == "__main__":
    run(main)
