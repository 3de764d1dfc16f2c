"""Command lines: presets, dotted overrides, errors that name the key. Only here is jsonargparse."""

import argparse
import difflib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from data.dotted_keys import assign, flat
from data.files import UnreachableError, has_credentials
from job.settings.config import Config

# package of a store's client -> what to install, with the versions that are tested
PINNED = {"s3fs": "--requirement requirements.lock", "gcsfs": "--requirement deploy/cloud.lock"}


def parser(prog: str, description: str) -> ArgumentParser:
    """Return a parser that takes --config FILE and every key of Config as --section.key VALUE.

    Later arguments win.
    """
    made = ArgumentParser(prog=prog, description=description, exit_on_error=False)
    made.add_argument(
        "--config",
        action="config",
        help="YAML file of sections and keys, such as job/presets/demo.yaml",
    )
    made.add_class_arguments(Config, fail_untyped=True)
    return made


def hidden_alias(made: argparse.ArgumentParser, alias: str, dest: str, **kwargs: Any) -> None:
    """Accept another form of an option that stands in no help and no document.

    Options were written with underscores once, and scripts of users may still have them.

    Args:
        made: parser that has the option.
        alias: the other form.
        dest: name under which the option is parsed.
        **kwargs: what the option was added with; without help and default.
    """
    hidden: dict[str, Any] = {"help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
    made.add_argument(alias, dest=dest, **kwargs, **hidden)


def parse(made: ArgumentParser, argv: Sequence[str]) -> tuple[Config, Namespace]:
    """Parse a command line of `parser`: the configuration, and all arguments.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a password in a URI; names the
            key.
    """
    try:
        args = made.instantiate_classes(made.parse_args(list(argv)))
    except ArgumentError as error:
        files = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word == "--config"]
        where = f" (with --config {' '.join(files)})" if files else ""
        raise ValueError(f"{error}{where}") from error
    return _config(args), args


def overridden(config: Config, values: Mapping[str, object]) -> Config:
    """Return the configuration with other values of some keys.

    Args:
        config: the configuration.
        values: dotted key -> value.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a password in a URI; names the
            key.
    """
    # parsed again as a whole, so that types are checked as on the command line
    content: Any = _plain(asdict(config))
    known = flat(content)
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise ValueError(f"{key} is no key of the configuration{hint}")
        assign(content, key, value)

    made = _of_configurations()
    try:
        return _config(made.instantiate_classes(made.parse_object(content)))
    except ArgumentError as error:
        raise ValueError(f"{', '.join(values)}: {error}") from error


@functools.cache
def _of_configurations() -> ArgumentParser:
    """Return the parser of configurations without a command line; making one takes a while."""
    return parser("config", "")


def _config(args: Namespace) -> Config:
    """Return the configuration among parsed arguments; refuse one that holds passwords."""
    cfg = Config(**{field.name: args[field.name] for field in fields(Config)})
    for key, value in flat(asdict(cfg)).items():
        for text in _texts(value):
            refuse_credentials(key, text)
    return cfg


def refuse_credentials(key: str, text: str) -> None:
    """Refuse a URI with a password before it is written anywhere.

    Raises:
        ValueError: names the key, not the value.
    """
    if has_credentials(text):
        raise ValueError(
            f"{key} is a URI that holds a password, key or token, which logs and checkpoints would "
            "then hold too: take it out, and give it by the environment (AWS_ACCESS_KEY_ID, "
            "HF_TOKEN, ...) or the machine's role"
        )


def _texts(value: object) -> Iterator[str]:
    """Yield the texts that a value consists of."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | dict):
        parts = value.values() if isinstance(value, dict) else value
        for part in parts:
            yield from _texts(part)


def read_config(path: str | Path) -> Config:
    """Read the configuration of a YAML file, such as a checkpoint's config.yaml.

    Raises:
        ValueError: an unknown key or a value of the wrong type; names it.
    """
    return parse(parser("config", ""), ["--config", str(path)])[0]


def to_yaml(config: Config) -> str:
    """Return the configuration as YAML that `read_config` reads."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False, allow_unicode=True)


def _plain(value: object) -> object:
    """Return a value with lists in place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Run a command and exit with its status.

    A user's mistake ends it with one clear line and status 2 instead of a traceback.
    """
    try:
        # before anything is parsed, since errors show what was given
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
    """Return what to type if a store's client is not installed; empty for any other error.

    fsspec reports a missing client by an ImportError, caused by the missing module.
    """
    reported = error.__cause__ if isinstance(error, UnreachableError) else error
    missing = reported.__cause__ if isinstance(reported, ImportError) else None
    if not isinstance(missing, ModuleNotFoundError) or not missing.name:
        return ""
    return f": python -m pip install {PINNED.get(missing.name, missing.name)}"
