"""What a driver prints of the output of the cluster's other processes."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

# What prints, past the dispatcher, what a raylet tells all drivers.
import ray._private.worker as driver

# Who hands each batch of lines to those who print it.
from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

from job.on_ray.private.releases import needs

needs(type(dispatcher), "add_handler", "remove_handler", "handlers")
needs(driver, "print_to_stdstream")

PRINTS = "ray_print_logs"  # its name there; where there is none, all is printed
_PRINT = driver.print_to_stdstream


def show_only(shown: Callable[[str], bool]) -> None:
    """Have this driver print only some of the lines, from its connection to its end.

    Args:
        shown: whether a line is printed.
    """
    for printed in _printers():
        _print_by(partial(_pass_on, printed, shown, {}))
    driver.print_to_stdstream = partial(_pass_on, _PRINT, shown, {})


@contextlib.contextmanager
def taking(take: Callable[[str], bool], as_output: bool) -> Iterator[None]:
    """Have this driver hand on lines, within the block; it prints the others as ever.

    Args:
        take: is given a line, in a thread of Ray's; tells whether it was taken.
        as_output: whether what others say on standard error goes to standard output.
    """
    before = _printers()
    instead = {"is_err": False} if as_output else {}
    for printed in before:
        _print_by(partial(_pass_on, printed, lambda line: not take(line), instead))
    try:
        yield
    finally:
        for printed in before:
            _print_by(printed)


def _printers() -> list[Callable[[dict[str, Any]], None]]:
    """Return who prints: nobody in a process that is no driver."""
    return [printed for name, printed in list(dispatcher.handlers) if name == PRINTS]


def _print_by(printed: Callable[[dict[str, Any]], None]) -> None:
    dispatcher.remove_handler(PRINTS)
    dispatcher.add_handler(PRINTS, printed)


def _pass_on(
    printed: Callable[..., None],
    shown: Callable[[str], bool],
    instead: dict[str, Any],
    batch: dict[str, Any],
    **options: Any,
) -> None:
    lines = [line for line in batch["lines"] if shown(line)]
    if lines:
        printed(batch | instead | {"lines": lines}, **options)
