"""Command lines: YAML presets, dotted overrides, and errors that name the key. Only this module knows jsonargparse."""

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from data.files import UnreachableError, has_credentials
from job.settings.config import Config

# clients of stores
PINNED = {"s3fs": "--requirement requirements.lock", "gcsfs": "--requirement deploy/cloud.lock"}


def parser(prog: str, description: str) -> ArgumentParser:
    """A parser that takes --config FILE and every key of Config as --section.key VALUE; later ones win."""
    made = ArgumentParser(prog=prog, description=description, exit_on_error=False)
    made.add_argument(
        "--config",
        action="config",
        help="YAML file of sections and keys, such as job/presets/demo.yaml",
    )
    made.add_class_arguments(Config, fail_untyped=True)
    return made


def parse(made: ArgumentParser, argv: Sequence[str]) -> tuple[Config, Namespace]:
    """Parse a command line of `parser`: the configuration, and all arguments.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a password in a URI; names the
            key.
    """
    try:
        args = made.instantiate_classes(made.parse_args(list(argv)))
    except ArgumentError as error:
        files = [argv[i + 1] for i, a in enumerate(argv[:-1]) if a == "--config"]
        raise ValueError(
            f"{error}" + (f" (with --config {' '.join(files)})" if files else "")
        ) from error
    return _config(args), args


def overridden(config: Config, values: Mapping[str, object]) -> Config:
    """The configuration with other values of some keys.

    Args:
        config: the configuration.
        values: dotted key -> value.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a password in a URI; names the
            key.
    """
    content: Any = _plain(asdict(config))
    known = _keys(content)
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ValueError(
                f"{key} is no key of the configuration"
                + (f": did you mean {near[0]}?" if near else "")
            )
        *path, last = key.split(".")
        reduce(getitem, path, content)[last] = value
    made = parser("config", "")
    try:
        return _config(made.instantiate_classes(made.parse_object(content)))
    except ArgumentError as error:
        raise ValueError(f"{', '.join(values)}: {error}") from error


def _config(args: Namespace) -> Config:
    cfg = Config(**{f.name: args[f.name] for f in fields(Config)})
    for key, text in _texts(asdict(cfg)):
        refuse_credentials(key, text)
    return cfg


def _keys(content: Mapping[str, object], prefix: str = "") -> list[str]:
    """Dotted keys of all that is no section."""
    found = []
    for name, value in content.items():
        found += (
            _keys(value, f"{prefix}{name}.")
            if isinstance(value, dict) and value
            else [f"{prefix}{name}"]
        )
    return found


def refuse_credentials(key: str, text: str) -> None:
    """Refuse a URI with a password before it is written anywhere.

    Raises:
        ValueError: names the key, not the value.
    """
    if has_credentials(text):
        raise ValueError(
            f"{key} is a URI that holds a password, key or token, which logs and checkpoints would then hold too: take "
            "it out, and give it by the environment (AWS_ACCESS_KEY_ID, HF_TOKEN, ...) or the machine's role"
        )


def _texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part, key)
    elif isinstance(value, str):
        yield key, value


def read_config(path: str | Path) -> Config:
    """The configuration of a YAML file, such as a checkpoint's config.yaml.

    Raises:
        ValueError: an unknown key or a value of the wrong type; names it.
    """
    return parse(parser("config", ""), ["--config", str(path)])[0]


def to_yaml(config: Config) -> str:
    """The configuration as YAML that `read_config` reads."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False, allow_unicode=True)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Run a command; a user's mistake ends it with one clear line and status 2 instead of a traceback."""
    try:
        for option, value in zip(sys.argv, sys.argv[1:], strict=False):
            refuse_credentials(option if option.startswith("--") else "an argument", value)
        status = main(sys.argv[1:])
    except (ValueError, OSError) as error:
        print(f"error: {error}{how_to_install(error)}", file=sys.stderr)
        status = 2
    except ImportError as error:
        if not (how := how_to_install(error)):
            raise
        print(f"error: {error}{how}", file=sys.stderr)
        status = 2
    sys.exit(status)


def how_to_install(error: BaseException) -> str:
    """What to type where a store's client is not installed, which fsspec tells by an ImportError; else nothing."""
    told = error.__cause__ if isinstance(error, UnreachableError) else error
    missing = told.__cause__ if isinstance(told, ImportError) else None
    if not isinstance(missing, ModuleNotFoundError) or not missing.name:
        return ""
    return f": python -m pip install {PINNED.get(missing.name, missing.name)}"
