"""Run a command on a cluster: `python -m job.submit -- job.train --config C ...`.

It uploads the working directory without what .gitignore and .rayignore name, shows the job's
output, and ends as the job does. The job outlives this terminal.
"""

import argparse
import asyncio
import importlib.util
import logging
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from job.on_ray.authentication import wants_a_token
from job.settings.cli import Arguments, run
from job.settings.keys import did_you_mean

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = "http://127.0.0.1:8265"  # where `ray dashboard cluster.yaml` leads
INTERRUPTED = 130  # status that shells give to a command ended by Ctrl-C
ENDS_WITHIN_S = 30  # from the end of a job's output to its status
# `ray job stop` gives a job so long after SIGTERM, by default three: a step, a save, its last lines
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_WITHIN_S = "120"


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    check_module(args.module)
    # it would name every .gitignore, several times
    logging.getLogger("ray").setLevel(logging.ERROR)
    client = connect(args.address)
    entrypoint = shlex.join(["python", "-m", args.module, *args.arguments])
    job = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env())
    print(f"job {job}: {entrypoint}", flush=True)

    # Ctrl-C or a broken connection ends only the display, not the job
    try:
        asyncio.run(show_output(client, job))
        status = ended(client, job)
    except (KeyboardInterrupt, RuntimeError) as error:
        reason = f" ({error})" if str(error) else ""
        print(f"\nThe job continues without this terminal{reason}.", flush=True)
        print(how_to_continue(args.address, job), flush=True)
        return INTERRUPTED
    print(f"job {job}: {status.value.lower()}")
    return 0 if status is JobStatus.SUCCEEDED else 1


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.submit", "Run a command of this project on a cluster.")
    address = os.environ.get("RAY_API_SERVER_ADDRESS", DASHBOARD)
    made.add_argument("--address", default=address, help="address of the cluster's dashboard")
    made.add_argument("module", help="job.train, job.prepare, job.doctor, ...; put -- before it")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the module")
    return made


def runtime_env() -> dict[str, Any]:
    """Return what the job is given: the working directory, and time to end when it is stopped."""
    env = {STOP_WAIT: os.environ.get(STOP_WAIT, STOP_WITHIN_S)}
    return {"working_dir": str(ROOT), "env_vars": env}


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
        ValueError: nothing answers there, or the cluster asks for its token.
    """
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ValueError(wants_a_token(f"the cluster at {address}", error)) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"no cluster answers at {address}: leave `ray dashboard cluster.yaml` open in another "
            f"terminal, or give --address ({error})"
        ) from error


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
