"""Shows a job's output until the job ends, also across a head that is lost and comes back."""

import asyncio
import time
from collections.abc import Callable

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from job.on_ray.authentication import wants_a_token
from job.reports.forwarded import showing_job
from trainable.config import CheckpointConfig

INTERRUPTED = 130  # status that shells give to a command ended by Ctrl-C
ENDS_WITHIN_S = 30  # from the end of a job's output to its status
BROKEN = (RuntimeError, OSError, aiohttp.ClientError)  # what Ray's client raises then
NOT_FOUND = "status code 404"  # in its words
# Ray's types of error of a job whose head was lost, where a Redis has kept its name
LOST = ("JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE")
LOOK_EVERY_S = 2.0  # for a head that is away
TELL_EVERY_S = 60.0


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
