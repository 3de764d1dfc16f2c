"""Which releases of Ray this project runs with, and what it says to the others.

Ray may change or drop a private name in any release. Each module of this package asks at import for
what it uses (`needs`), and tests/job/on_ray/test_releases.py tries them with each release of the
range. Where the releases of the range differ, the module has a fall-back.
"""

import contextlib
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import ray

# as in pyproject.toml: from the first on, before the second
FIRST, BEFORE = (2, 59), (2, 61)


def release() -> tuple[int, ...]:
    """Return the first two numbers of the installed Ray's version."""
    return tuple(int(part) for part in ray.__version__.split(".")[:2])


def needs(owner: Any, *names: str) -> None:
    """Ask for names that are used of a module or a class of Ray.

    A class has a name if it, or one that it inherits from, defines it or has a method that uses it.

    Raises:
        AttributeError: one is not there.
    """
    for name in names:
        if not (hasattr(owner, name) or (isinstance(owner, type) and _uses(owner, name))):
            raise AttributeError(f"{owner.__name__} of Ray {ray.__version__} has no {name}")


def _uses(cls: type, name: str) -> bool:
    methods = [each for base in cls.__mro__ for each in vars(base).values()]
    return any(
        name in method.__code__.co_names for method in methods if isinstance(method, FunctionType)
    )


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """End this process in one line, where Ray is of another release than we run with.

    Commands import us before they run, so nobody could catch an error.
    """
    if not FIRST <= release() < BEFORE:
        _refuse("")
    try:
        yield
    except (ImportError, AttributeError) as error:
        _refuse(f" ({' '.join(str(error).split())})", error)


def _refuse(why: str, error: Exception | None = None) -> None:
    first, before = (".".join(map(str, each)) for each in (FIRST, BEFORE))
    last = f"{BEFORE[0]}.{BEFORE[1] - 1}"
    print(
        f"error: Ray {ray.__version__} is installed, and this code runs with {first} to "
        f"{last}{why}: install that, as by pip install 'ray[data,default,train,tune]"
        f">={first},<{before}'",
        file=sys.stderr,
    )
    raise SystemExit(2) from error
