"""Options of job.submit."""

import argparse
import os

from job.settings.cli import Arguments

DASHBOARD = "http://127.0.0.1:8265"  # where `ray dashboard cluster.yaml` leads
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray's variables


def command_line() -> Arguments:
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
    made.add_argument(
        "--retry",
        type=int,
        default=0,
        metavar="N",
        help="submit again if the head is lost, up to N times, as soon as it answers again",
    )
    made.add_argument("--no-wait", action="store_true", help="end when the job is submitted")
    made.add_argument("module", help="job.train, job.prepare, job.doctor, ...; put -- before it")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the module")
    return made
