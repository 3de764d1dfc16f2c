"""Help: examples first, a screenful, every key with its words, under the name it was called by."""

import importlib
import json
import re
import shlex
import subprocess
import sys

import pytest

from data.settings.declared import declared
from job.options import show_help
from job.settings.cli import ConfigParser, parse, parser
from job.settings.commands import COMMANDS, Command, command_of
from job.settings.config import Config
from job.settings.keys import declared_at, known_keys, meanings
from tests.job.conftest import DEMO
from tests.test_house import ROOT

SCREEN = 40  # lines
ids = [command.name for command in COMMANDS]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def command_line(command: Command):
    if command.is_configured:
        return parser(f"python -m {command.module}", "")
    return importlib.import_module(command.main_in or command.module).command_line()


def test_every_command_is_listed(call):
    told = call("job")
    assert told.returncode == 0
    modules = {f"job.{path.stem}" for path in (ROOT / "job").glob("[!_]*.py")}
    packages = {f"job.{path.parent.name}" for path in (ROOT / "job").glob("*/__main__.py")}
    assert {command.module for command in COMMANDS} == modules | packages | {"tuning.sweep"}
    for command in COMMANDS:
        assert re.search(rf"^  {command.name} +{command.purpose}$", told.stdout, re.MULTILINE)
    assert max(map(len, told.stdout.splitlines())) <= 80
    assert call("job", "--help").stdout == told.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=ids)
def test_the_help_is_a_screenful_with_examples_first(call, command):
    if command.name == "spot":
        pytest.skip("it is copied to the nodes without this project, and has its own help")
    for called in (f"job {command.name}", command.module):
        told = call(*called.split(), "--help")
        assert told.returncode == 0
        assert told.stdout.startswith(f"usage: python -m {called} ")
        assert len(told.stdout.splitlines()) <= SCREEN
        assert told.stdout.index("\nexamples:\n") < told.stdout.index("\noptions")
        for arguments, meaning in command.examples:
            assert f"  python -m {called} {arguments}\n      {meaning}\n" in told.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=ids)
def test_no_option_is_without_words(command):
    shown = [each for each in command_line(command)._actions if each.help != "==SUPPRESS=="]
    assert [each.option_strings for each in shown if not (each.help or "").strip()] == []


@pytest.mark.parametrize("command", COMMANDS, ids=ids)
def test_examples_are_accepted(command):
    made = command_line(command)
    for arguments, _ in command.examples:
        words = shlex.split(arguments.partition(" < ")[0])
        if isinstance(made, ConfigParser):
            own = [str(DEMO) if re.fullmatch(r"\S+\.yaml", word) else word for word in words]
            parse(made, own)
        else:
            made.parse_args(words)


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_the_whole_help_has_every_key_with_the_words_of_its_declaration(call, command):
    told = call("job", command, "--help-all")
    assert told.returncode == 0
    shown = squeezed(told.stdout)
    for key in known_keys():
        section, _, name = key.rpartition(".")
        words = meanings(declared_at(section) if section else Config)[name]
        assert squeezed(f"--{key} ") in shown, key
        assert squeezed(words.rstrip(".")) in shown, key
    assert "CONFIG" not in told.stdout  # a section is given key by key
    assert not [name for name in declared(Config) if f" --{name} " in told.stdout]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("trian", "did you mean train?"),
        ("s", "did you mean synthesize or sweep or submit or spot?"),
        ("job.train", "did you mean train?"),
        ("convert-config", "did you mean convert_config?"),
        ("", "python -m job lists all"),
        ("--config", "python -m job lists all"),
    ],
)
def test_an_unknown_command_is_refused_in_a_line_with_those_that_are_near(call, given, meant):
    told = call("job", given)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == f"error: there is no command {given!r}: {meant}\n"


def test_a_mistake_is_told_as_by_the_module_itself(call):
    own, other = (
        call(*name, "--train.max_step", "1") for name in (["job.train"], ["job", "train"])
    )
    assert (own.returncode, own.stderr) == (other.returncode, other.stderr)
    assert own.returncode == 2


@pytest.mark.processes
def test_help_imports_neither_torch_nor_ray():
    """Of no command, whether it is called by its name or as a module, nor does a wrong name."""
    called = [["job"], ["job", "trian"]]
    for command in COMMANDS:
        called += [[command.module, "--help"], ["job", command.name, "--help"]]
    code = (
        "import contextlib, json, runpy, sys\n"
        "heavy = {'torch', 'ray', 'transformers', 'matplotlib'}\n"
        "for called in json.loads(sys.stdin.read()):\n"
        "    sys.argv = called\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        runpy.run_module(called[0], run_name='__main__')\n"
        "    print('imported', *called, *heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        input=json.dumps(called),
        capture_output=True,
        text=True,
        timeout=100,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("imported ")]
    assert told == [" ".join(["imported", *words]) for words in called], done.stderr
    assert done.stdout.count("usage: python -m ") == len(called) - 1


@pytest.mark.parametrize("words", [["job.submit"], ["job", "submit"]], ids=" ".join)
def test_help_that_is_passed_on_is_not_the_commands_own(monkeypatch, words):
    """`--help` behind the module is for the module."""
    monkeypatch.setattr(sys, "argv", [*words, "--", "job.train", "--help"])
    show_help(command_of("job.submit"), sys.argv[len(words) :])
    monkeypatch.setattr(sys, "argv", [*words, "--retry", "no", "--help"])
    show_help(command_of("job.submit"), sys.argv[len(words) :])
