"""Command lines: presets, dotted overrides, errors that name the key. Only here is jsonargparse."""

import argparse
import functools
import io
import json
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from data.config import TextConfig
from data.files import PathError, UnreachableError, has_credentials
from data.settings.declared import declared, refusal
from data.settings.dotted_keys import assign, flat
from job.settings.commands import loaded
from job.settings.config import Config
from job.settings.help import Helpful, explain
from job.settings.keys import declared_at, did_you_mean, unknown
from job.settings.yaml_file import read_yaml

# package of a store's client -> what to install, with the versions that are tested
PINNED = {"s3fs": "--requirement requirements.lock", "gcsfs": "--requirement deploy/cloud.lock"}


class ConfigParser(Helpful, ArgumentParser):
    """A parser of the configuration's keys."""


def parser(prog: str, description: str) -> ConfigParser:
    """Return a parser that takes --config FILE and every key of Config as --section.key VALUE.

    Later arguments win.
    """
    made = ConfigParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)
    made.add_help_all()
    made.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help="YAML file of sections and keys; may be given several times, later ones win",
    )
    made.add_class_arguments(Config, fail_untyped=True)
    explain(made, Config)
    return made


class Arguments(Helpful):
    """A parser of a command's own options, which are written out; mistakes are ValueErrors."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog, description=description, allow_abbrev=False)
        self.add_help_all()

    def error(self, message: str) -> NoReturn:
        """Refuse a command line.

        Raises:
            ValueError: tells which option may have been meant.
        """
        stray = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
        if stray is None:
            raise ValueError(f"{message} (--help shows how)")
        raise ValueError(f"{stray[1]} is no option of this command{self._meant(stray[1])}")

    def _meant(self, option: str) -> str:
        shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
        options = [name for action in shown for name in action.option_strings]
        begin_so = [name for name in options if name.startswith(option)]
        return (
            f": did you mean {' or '.join(begin_so)}?"
            if begin_so
            else (did_you_mean(option, options))
        )


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
        ValueError: an unknown key, a value that its key may not have, or a password in a URI; names
            the key, and the file and line of one that stands in a file.
        OSError: a file cannot be read.
    """
    words = _with_content_of_files(argv)
    try:
        # the dataclasses have the keys' defaults, and to parse these takes most of the time
        args = made.instantiate_classes(made.parse_args(words, defaults=False))
    except ArgumentError as error:
        raise ValueError(_in_one_line(str(error), made)) from error
    return _config(args, made), args


def _with_content_of_files(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the settings of each --config in place of its file's name."""
    words = [part for word in argv for part in _split(word)]
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        key = option.removeprefix("--")
        if is_dataclass(section := declared_at(key)):
            example = next(iter(declared(section)))  # type: ignore[arg-type]
            raise ValueError(
                f"{option} is a section: give its keys one by one, as {option}.{example}"
            )
    for i, word in enumerate(words[:-1]):
        if word == "--config":
            words[i + 1] = json.dumps(_content_of(words[i + 1]))
    return words


def _content_of(file: str) -> dict[str, Any]:
    try:
        return read_yaml(file)
    except PathError as error:
        raise ValueError(f"--config: {error}") from error
    except OSError as error:
        raise ValueError(f"--config {file}: {error.strerror or error}: give a YAML file") from error


def _split(word: str) -> list[str]:
    """Return `--config=FILE` as two arguments."""
    return word.split("=", 1) if word.startswith("--config=") else [word]


def _in_one_line(error: str, made: ArgumentParser) -> str:
    """Return an error of jsonargparse, which may have ten lines, as one that says what to give."""
    told = " ".join(error.split())
    if stray := re.match(r"unrecognized arguments: (--\S+)", told):
        option = stray[1].partition("=")[0]
        options = [name for action in made._actions for name in action.option_strings]
        near = did_you_mean(option.lstrip("-"), [name.lstrip("-") for name in options])
        return f"{option} is no option of this command{near.replace('mean ', 'mean --')}"

    key = ".".join(re.findall(r'Parser key "([^"]+)"', told))
    if stray := re.search(r"Option '([^']+)' is not accepted", told):
        return unknown(f"{key}.{stray[1]}")
    value = re.search(r"(?:Got|Given) value: (.*)$|path string: (.*)$", told)
    if value is not None and (hint := declared_at(key)) is not None:
        return refusal(key, value[1] or value[2], hint)
    return f"{key}: {': '.join(told.rsplit(': ', 2)[-2:])}" if key else told


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
            raise ValueError(unknown(key))
        assign(content, key, value)

    return _of_content(content)


def _of_content(content: dict[str, Any]) -> Config:
    """Return the configuration of sections and keys."""
    made = _of_configurations()
    try:
        return _config(made.instantiate_classes(made.parse_object(content, defaults=False)), made)
    except ArgumentError as error:
        raise ValueError(_in_one_line(str(error), made)) from error


@functools.cache
def _of_configurations() -> ArgumentParser:
    """Return the parser of what stands on no command line; making one takes a while."""
    return parser("config", "")


def _config(args: Namespace, made: ArgumentParser) -> Config:
    """Return the configuration among parsed arguments; refuse one that holds passwords.

    Sections and options that were not given are added to the arguments.
    """
    for option in made._actions:
        is_key = "." in option.dest
        if not is_key and option.default != argparse.SUPPRESS and option.dest not in args:
            args[option.dest] = option.default
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


def config_of(argv: Sequence[str]) -> Config:
    """Return the configuration of arguments that are nothing but its keys.

    Raises: see `parse`.
    """
    return parse(_of_configurations(), argv)[0]


def read_config(path: str | Path) -> Config:
    """Read the configuration of a YAML file, such as a checkpoint's config.yaml.

    Raises:
        ValueError: an unknown key or a value of the wrong type; names it.
    """
    return _of_content(_content_of(str(path)))


def read_saved_config(path: str | Path) -> Config:
    """Read the configuration that a run or checkpoint keeps, which names every key.

    One without data.text is of older code, which read texts as the reference does.

    Raises: see `read_config`.
    """
    content = _content_of(str(path))
    cfg = _of_content(content)
    if "text" in content.get("data", {}):
        return cfg
    return replace(cfg, data=replace(cfg.data, text=TextConfig(normaliser="reference")))


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


class CommandFailedError(RuntimeError):
    """A command has failed without a mistake of its user; the message says what to do."""


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Run a command and exit with its status; whatever fails is told in one line.

    A user's mistake has status 2, a failure that a CommandFailedError reports or that nobody has
    foreseen status 1; the traceback of the latter goes to a file.
    """
    loaded()
    for stream in (sys.stdout, sys.stderr):
        # a name that the terminal's encoding does not have is shown escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # before anything is parsed, since errors show what was given
        for option, value in zip(sys.argv, sys.argv[1:], strict=False):
            refuse_credentials(option if option.startswith("--") else "an argument", value)
        status = main(sys.argv[1:])
    except (ValueError, OSError) as error:
        status = _say(2, f"{error}{how_to_install(error)}")
    except CommandFailedError as error:
        status = _say(1, str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001  # the last one: nobody else can tell it
        how = how_to_install(error)
        status = _say(2, f"{error}{how}") if how else _say(1, _unforeseen(error))
    sys.exit(status)


def _say(status: int, what: str) -> int:
    """Print an error in one line; return the status."""
    print(f"error: {' '.join(what.split())}", file=sys.stderr)
    return status


def _unforeseen(error: Exception) -> str:
    """Write the traceback of an error to a file; return what to say of it."""
    told = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="bert-vits2-ray-", suffix=".log", encoding="utf-8", delete=False
    ) as file:
        file.write(told)
    return f"{type(error).__name__}: {error}; {file.name} has the whole traceback"


def how_to_install(error: BaseException) -> str:
    """Return what to type if a store's client is not installed; empty for any other error.

    fsspec reports a missing client by an ImportError, caused by the missing module.
    """
    reported = error.__cause__ if isinstance(error, UnreachableError) else error
    missing = reported.__cause__ if isinstance(reported, ImportError) else None
    if not isinstance(missing, ModuleNotFoundError) or not missing.name:
        return ""
    return f": python -m pip install {PINNED.get(missing.name, missing.name)}"
