"""The command: checks what it is given before anything is sent."""

import argparse
import importlib.util
import logging
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from job.options.submit import command_line
from job.reports.console import console, is_live
from job.settings.cli import config_of
from job.settings.commands import COMMANDS, HELP
from job.settings.keys import did_you_mean
from job.submit.client import connect, submitted
from job.submit.following import followed, how_to_follow
from job.submit.upload import staged
from trainable.config import CheckpointConfig

ROOT = Path(__file__).resolve().parents[2]
# `ray job stop` gives a job so long after SIGTERM, by default three: a step, a save, its last lines
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_WITHIN_S = "120"


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


def ranking_of(module: str, arguments: Sequence[str]) -> CheckpointConfig | None:
    """Return by which score a training ranks its checkpoints; None where no terminal shows one.

    Raises:
        ValueError: job.train would refuse its arguments.
    """
    if module != "job.train" or HELP & set(arguments) or not is_live(console()):
        return None
    return config_of(arguments).train.checkpoint


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
        near = did_you_mean(module, [command.module for command in COMMANDS])
        raise ValueError(f"there is no module {module!r}{near or ': give one such as job.train'}")
