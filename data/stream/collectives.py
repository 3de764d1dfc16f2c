"""Types of the collective calls that the stream is given.

Every worker makes each of them, in the same order, or the others wait for it.
"""

from typing import Protocol, TypeVar

T = TypeVar("T")


class CollectiveBroadcast(Protocol):
    """Return rank 0's object on all ranks. A collective call."""

    def __call__(self, thing: T, /) -> T:
        """Return rank 0's `thing`; those of the other ranks are ignored."""


class CollectiveAgreement(Protocol):
    """Return the error of the first rank that has one, on all ranks. A collective call."""

    def __call__(self, error: str, /) -> str:
        """Return "" if no rank has an error.

        Args:
            error: this rank's error, or "".
        """


def alone(thing: T) -> T:
    """Return the object itself: both calls where this process is the only worker."""
    return thing
