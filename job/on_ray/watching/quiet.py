"""What Ray says of a run that means nothing is not shown: repetitions, and what looks like errors.

Ray's files in the folder of its session have it all.
"""

import logging
import re

from job.on_ray.private import WorkerGroupStartupTimeoutError, show_only

# Beginnings of what Ray Train says in the controller and the workers -> why it is not shown.
MEANS_NOTHING = {
    "Did not detect any changes in the cluster resources": "nothing has changed",
    "Detected ready resources for": "`Waiting` says what is missing; a start has a line of its own",
    "Failed to send resource request for": "is sent again within seconds, without harm",
    "Reporting training result": "at each log line, with all that this line has",
    "Result dict has no key": "a checkpoint between validations has no score, and needs none",
    "[FailurePolicy] RETRY\n  Source: preemption": "the workers have said that they leave and save",
}
ATTEMPT = "Attempting to start training worker group of size"  # once per look at the cluster
# Of a worker that leaves since it was told to, which it says itself, in a line.
LEAVES = ("Error in training function:", "PreemptedError")

# What other processes of the cluster print -> why the driver does not pass it on.
LINES_MEAN_NOTHING = {
    r"has constructor arguments in the object store and max_restarts": (
        "of actors of Ray's own, which end with the workers or the epoch and are made again"
    ),
    r"can fulfill resource requests \{[^}]*\}\*\d+ with label selectors: "
    r"\[ray\.io/node-id IN \[\w*\]\]\. Add": (
        "an actor that belongs onto one node waits for that node, and no other one would help"
    ),
    r"worker processes have been started on node": (
        "actors of Ray Train and Ray Data hardly compute, and a machine has more of them than cores"
    ),
    r"can fulfill cluster constraint": (
        "an elastic run asks for the most workers that it may have; `Waiting` says what is missing"
    ),
}
MEANS_NOTHING_IN_A_LINE = re.compile("|".join(LINES_MEAN_NOTHING))


class Quiet(logging.Filter):
    """Holds back what means nothing: repetitions, and the traceback of a start that has to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.attempt = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is shown."""
        if record.exc_info and isinstance(record.exc_info[1], WorkerGroupStartupTimeoutError):
            return False
        told = record.getMessage()
        if told.startswith(ATTEMPT):
            repeated, self.attempt = told == self.attempt, told
            return not repeated
        begins, names = LEAVES
        if told.startswith(begins) and names in told:
            return False
        return not told.startswith(tuple(MEANS_NOTHING))


def quieten() -> None:
    """Have Ray Train, whose controller or worker this process is, show what means something."""
    quiet = Quiet()
    for handler in logging.getLogger("ray.train").handlers:
        if isinstance(handler, logging.StreamHandler):  # the others write Ray's own files
            handler.addFilter(quiet)


def quieten_driver() -> None:
    """Have this driver, which is connected, pass on what means something of other processes."""
    show_only(lambda line: MEANS_NOTHING_IN_A_LINE.search(line) is None)
