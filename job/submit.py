"""Run a command on a cluster: `python -m job.submit -- job.train --config C ...`.

It uploads the code, the presets and the files of settings that the command names, shows the job's
output, and ends as the job does. The job outlives this terminal.

With --retry N it outlives the cluster's head: where the head was lost and is back, the same command
is submitted again, under a new id, and a run resumes from its newest checkpoint.

Exit status: 0 if the job succeeded (with --no-wait, if the cluster has taken it), 1 if it failed or
was stopped, 2 if it could not be submitted, 130 if this terminal has left the job (Ctrl-C, or a
broken connection) and it continues.
"""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.submit")

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from job.on_ray.authentication import wants_a_token
from job.on_ray.upload import staged
from job.options.submit import ADDRESSES, DASHBOARD, command_line
from job.reports.console import console, is_live
from job.reports.forwarded import showing_job
from job.settings.cli import parse, parser, run
from job.settings.commands import HELP
from job.settings.keys import did_you_mean
from trainable.config import CheckpointConfig

ROOT = Path(__file__).resolve().parents[1]
INTERRUPTED = 130  # status that shells give to a command ended by Ctrl-C
ENDS_WITHIN_S = 30  # from the end of a job's output to its status
# `ray job stop` gives a job so long after SIGTERM, by default three: a step, a save, its last lines
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_WITHIN_S = "120"
BROKEN = (RuntimeError, OSError, aiohttp.ClientError)  # what Ray's client raises then
NOT_FOUND = "status code 404"  # in its words
# Ray's types of error of a job whose head was lost, where a Redis has kept its name
LOST = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
LOOK_EVERY_S = 2.0  # for a head that is away
TELL_EVERY_S = 60.0


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    check_module(args.module)
    env = environment(args.env)
    check_id(args.submission_id)
    check_retry(args)
    # it would tell of each upload
    logging.getLogger("ray").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="bert-vits2-ray-") as folder:
        arguments = staged(ROOT, args.arguments, Path(folder))
        ranking = ranking_of(args.module, args.arguments)
        client = connect(args.address)
        entrypoint = shlex.join(["python", "-m", args.module, *arguments])
        runtime_env = {"working_dir": folder, "env_vars": env}
        # a head that comes in the place of a lost one has neither the job nor its upload
        for attempt in range(1, args.retry + 2):
            own_id = numbered(args.submission_id, attempt)
            job = submitted(client, entrypoint, runtime_env, own_id)
            print(f"job {job}: {entrypoint}", flush=True)
            if args.no_wait:
                print(how_to_follow(args.address, job), flush=True)
                return 0
            status = followed(client, args.address, job, ranking, attempt <= args.retry)
            if status is not None:
                return status
            print(f"job {job} was lost with the head: it is submitted again", flush=True)
    raise AssertionError("not reached: the last attempt does not wait")


def followed(
    client: JobSubmissionClient,
    address: str,
    job: str,
    ranking: CheckpointConfig | None,
    waits: bool = False,
) -> int | None:
    """Show a job's output until it ends; return the command's exit status.

    Args:
        client: client of the cluster's dashboard.
        address: the dashboard's address.
        job: id of the job.
        ranking: see `showing_job`.
        waits: wait for a head that does not answer, and return None if the job was lost with it.
    """
    # Ctrl-C or a broken connection ends only the display, not the job
    try:
        with showing_job(ranking) as show:
            status = status_at_end(client, job, show, waits)
        lost = status is None or (waits and was_lost(client, job, status))
    except (KeyboardInterrupt, *BROKEN) as error:
        reason = f" ({error})" if str(error) else ""
        print(f"\nThe job continues without this terminal{reason}.", flush=True)
        print(how_to_follow(address, job), flush=True)
        return INTERRUPTED
    if status is None or lost:
        return None
    print(f"job {job}: {status.value.lower()}")
    return 0 if status is JobStatus.SUCCEEDED else 1


def status_at_end(
    client: JobSubmissionClient, job: str, show: Callable[[str], object], waits: bool
) -> JobStatus | None:
    """Show a job's output until it ends; None if the head that answers again does not know it.

    Raises:
        RuntimeError, OSError, aiohttp.ClientError: the connection broke, and nobody waits.
    """
    output = Output(show)
    while True:
        try:
            asyncio.run(output.show(client, job))
            return ended(client, job)
        except BROKEN:
            if not waits:
                raise
        wait_for_head(client)
        if not is_known(client, job):
            return None


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


def check_retry(args: argparse.Namespace) -> None:
    """Refuse a number of retries that is none, and one that nobody would wait for.

    Raises:
        ValueError: names the option.
    """
    if args.retry < 0:
        raise ValueError(f"--retry is {args.retry}: give how often at most, from 0")
    if args.retry and args.no_wait:
        raise ValueError("--retry follows the job, and --no-wait does not: leave one of them out")


def numbered(submission_id: str | None, attempt: int) -> str | None:
    """Return the id of an attempt: each has one of its own; None where Ray makes it."""
    return submission_id if attempt == 1 or submission_id is None else f"{submission_id}-{attempt}"


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


def ranking_of(module: str, arguments: Sequence[str]) -> CheckpointConfig | None:
    """Return by which score a training ranks its checkpoints; None where no terminal shows one.

    Raises:
        ValueError: job.train would refuse its arguments.
    """
    if module != "job.train" or HELP & set(arguments) or not is_live(console()):
        return None
    return parse(parser("python -m job.train", ""), arguments)[0].train.checkpoint


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


class Output:
    """A job's output, which is shown once, however often the connection breaks.

    Args:
        show: shows a piece of it.

    Attributes:
        shown: number of characters that were shown.
    """

    def __init__(self, show: Callable[[str], object]) -> None:
        self.say = show
        self.shown = 0

    async def show(self, client: JobSubmissionClient, job: str) -> None:
        """Show a job's output as it comes, until the job ends.

        Raises:
            RuntimeError, OSError, aiohttp.ClientError: the connection broke.
        """
        known = self.shown
        async for lines in client.tail_job_logs(job):
            new = lines[known:]
            known = max(0, known - len(lines))
            self.shown += len(new)
            self.say(new)


def wait_for_head(client: JobSubmissionClient) -> None:
    """Wait until the cluster's dashboard answers.

    Raises:
        ValueError: it asks for a token.
    """
    told = float("-inf")
    while True:
        time.sleep(LOOK_EVERY_S)
        try:
            client.list_jobs()
            return
        except AuthenticationError as error:
            raise ValueError(wants_a_token("the cluster", error)) from error
        except BROKEN as error:
            reason = " ".join(str(error).split())
        if time.monotonic() > told + TELL_EVERY_S:
            told = time.monotonic()
            print(f"the head does not answer: waits until it is back ({reason})", flush=True)


def is_known(client: JobSubmissionClient, job: str) -> bool:
    """Tell whether the cluster knows a job: a head that replaces a lost one does not."""
    try:
        client.get_job_status(job)
    except RuntimeError as error:
        if NOT_FOUND in str(error):
            return False
        raise
    return True


def was_lost(client: JobSubmissionClient, job: str, status: JobStatus) -> bool:
    """Tell whether a job has failed as what runs it has died, rather than by itself."""
    return status is JobStatus.FAILED and client.get_job_info(job).error_type in LOST


def ended(client: JobSubmissionClient, job: str) -> JobStatus:
    """Return the status of a job whose output has ended.

    Raises:
        RuntimeError: the job has not ended, or the cluster does not answer.
        OSError: the cluster does not answer.
    """
    deadline = time.monotonic() + ENDS_WITHIN_S
    while not (status := client.get_job_status(job)).is_terminal():
        if time.monotonic() > deadline:
            raise RuntimeError("its output has stopped")
        time.sleep(0.2)
    return status


def how_to_follow(address: str, job: str) -> str:
    """Return what to type to follow and to stop a job."""
    return (
        f"  follow it:  ray job logs --follow --address {address} {job}\n"
        f"  stop it:    ray job stop --address {address} {job}"
    )


if __name__ == "__main__":
    run(main)
