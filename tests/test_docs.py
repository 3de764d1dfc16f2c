"""What the pages say: commands and keys that exist, links that lead somewhere, a reference that is current."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from job.cli import parse, parser
from job.reference_config import FREEZES, NOT_USED, REFUSED, SAME
from tests.test_house import ROOT
from tests.tiny import DEMO
from tools.config_reference import PAGE, page
from tools.pages import commands
from tuning.sweep import command_line

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURED = {"job.train", "job.prepare", "job.doctor", "tuning.sweep"}  # take every key of the configuration


def modules(path: Path) -> list[tuple[str, list[str]]]:
    """(module, arguments) of each `python -m` of a page's blocks, through job.submit too."""
    found = []
    for line in (line for line in commands(path) if "python -m " in line):
        words = shlex.split(line, comments=True)
        for i, word in enumerate(words[:-1]):
            if word == "-m" and words[i - 1].rpartition("/")[2].startswith("python"):
                inner = words[i + 1] == "job.submit"
                start = words.index("--", i) + 1 if inner else i + 1
                found.append((words[start], words[start + 1 :]))
    return found


def test_the_configuration_page_is_current():
    assert PAGE.read_text() == page(), "run: python -m tools.config_reference"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_are_accepted(path):
    """Each module exists; each option is one of its own; what takes a configuration accepts the keys and values."""
    for module, arguments in modules(path):
        source = ROOT / f"{module.replace('.', '/')}.py"
        if module.split(".")[0] not in ("job", "tuning", "benchmarks", "tools"):
            continue
        assert source.is_file(), module
        if module in CONFIGURED:
            # a configuration of the reader's own is as good as any
            own = {word for word in arguments if word == "C" or (word.endswith(".yaml") and not (ROOT / word).exists())}
            made = command_line() if module == "tuning.sweep" else parser(module, "")
            parse(made, [str(DEMO) if word in own else word for word in arguments])
        else:
            constants = {n.value for n in ast.walk(ast.parse(source.read_text())) if isinstance(n, ast.Constant)}
            for option in (word for word in arguments if word.startswith("--")):
                assert option in constants, f"{module} {option}"


def keys() -> set[str]:
    """Sections and keys of the configuration."""
    found, section = set(), ""
    for heading, key in re.findall(r"^## (\S+)|^\| `(\w+)` \|", page(), re.MULTILINE):
        section = heading or section
        found.add(f"{section}.{key}" if key else section)
    return found


def test_keys_that_pages_name_exist():
    """`section.key` in code style is a key of the configuration, or of the reference's, or a module."""
    known = keys() | SAME.keys() | NOT_USED.keys() | FREEZES.keys() | set(REFUSED)
    known |= {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in ROOT.glob("data/**/*.py")}
    assert "train.checkpoint.every_steps" in known
    for path in PAGES:
        named = re.findall(r"`((?:run|scaling|data|model|train|eval)(?:\.[a-z_]+)+)`", path.read_text())
        assert set(named) <= known, path.name
