"""What a driver prints of the output of the cluster's other processes."""

from collections.abc import Callable
from functools import partial
from typing import Any

# Who hands each batch of lines to those who print it.
from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

from job.on_ray.private.releases import needs

needs(type(dispatcher), "add_handler", "remove_handler", "handlers")

PRINTS = "ray_print_logs"  # its name there; where there is none, all is printed


def show_only(shown: Callable[[str], bool]) -> None:
    """Have this driver print only some of the lines, from its connection to its end.

    Args:
        shown: whether a line is printed.
    """
    for name, printed in list(dispatcher.handlers):
        if name == PRINTS:
            dispatcher.remove_handler(name)
            dispatcher.add_handler(name, partial(_pass_on, printed, shown))


def _pass_on(
    printed: Callable[[dict[str, Any]], None], shown: Callable[[str], bool], batch: dict[str, Any]
) -> None:
    lines = [line for line in batch["lines"] if shown(line)]
    if lines:
        printed(batch | {"lines": lines})
