"""The pages: commands start, keys exist, links lead somewhere, quoted words are printed."""

import ast
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import ray

from job import transcribe
from job.options import parser_of
from job.settings.checks import check
from job.settings.cli import config_of, parse
from job.settings.commands import command_of
from job.settings.config import Config
from job.settings.reference.config import FREEZES, NOT_USED, REFUSED, SAME
from tests.test_house import PACKAGES, ROOT
from tests.tiny import DEMO
from tools.config_reference import PAGE, page
from tools.pages import commands
from tuning import sweep

READMES = [ROOT / f"README{language}.md" for language in ("", ".zh", ".ja")]
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# take every key of the configuration
# commands with options beside the keys of the configuration
WITH_OPTIONS = {"tuning.sweep": sweep, "job.transcribe": transcribe}
CONFIGURED = {"job.train", "job.prepare", "job.doctor", *WITH_OPTIONS}


def page_name(path: Path) -> str:
    """The name of a page's cases: docs/README.md is not README.md."""
    return path.relative_to(ROOT).as_posix()


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


def options(text: str) -> list[list[str]]:
    """Return job.train's arguments in a text's code spans: of commands, and options alone."""
    spans = [
        span.partition("python -m job.train ")[2] or span
        for span in re.findall(r"`([^`\n]+)`", text)
    ]
    found = [
        ["2" if word == "N" else word for word in shlex.split(span)]
        for span in spans
        if span.startswith("--")
    ]
    return [words for words in found if "--scaling.num_workers" in words and len(words) > 1]


def parsed(arguments: list[str], module: str = "", own: Path = DEMO) -> Config:
    """The configuration of a documented command.

    Args:
        arguments: of the command.
        module: whose command it is.
        own: in place of a configuration of the reader's own.
    """
    files = {
        word
        for word in arguments
        if word == "C" or (word.endswith(".yaml") and not (ROOT / word).exists())
    }
    own_parser = WITH_OPTIONS.get(module)
    words = [str(own) if word in files else word for word in arguments]
    return parse(own_parser.command_line(), words)[0] if own_parser else config_of(words)


def test_the_configuration_page_is_current():
    assert PAGE.read_text() == page(), "run: python -m tools.config_reference"


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


def test_the_configuration_of_the_quickstart_is_one(tmp_path):
    (block,) = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs/quickstart.md").read_text("utf-8"), re.M | re.S
    )
    (tmp_path / "my.yaml").write_text(block, encoding="utf-8")
    read = parsed(["--config", str(tmp_path / "my.yaml")], own=tmp_path / "my.yaml")
    assert read.data.text.normaliser == "reference"
    assert set(read.eval.sentences) == {"EN"}


def anchors(path: Path) -> set[str]:
    """What `#...` may follow a link to a page: its headings, as they are made into anchors."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_anchors_are_headings(path):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", path.read_text("utf-8")):
        page = path.parent / target if target else path
        if "://" not in target and page.suffix == ".md":
            assert anchor in anchors(page), f"{target}#{anchor}"


@pytest.mark.parametrize("path", READMES[1:], ids=page_name)
def test_a_translation_has_the_commands_of_the_readme(path):
    """The same commands in the same order; the words beside them are translated."""
    own, original = (
        [shlex.split(c, comments=True) for c in commands(p)] for p in (path, READMES[0])
    )
    assert len(original) > 10
    assert own == original


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_the_index_has_every_page(path):
    if path.parent.name == "docs" and path.name != "README.md":
        assert f"({path.name})" in (ROOT / "docs/README.md").read_text(encoding="utf-8")


def options_of(module: str, source: Path) -> set[str]:
    """What a module takes: a command's options; of another one, all texts in its source."""
    if command := command_of(module):
        return set(parser_of(command)._option_string_actions)
    tree = ast.parse(source.read_text("utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


@pytest.mark.medium  # seconds, for all pages
@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_commands_are_accepted(path):
    """Modules and options exist; what takes a configuration accepts the keys and values."""
    for module, arguments in modules(path):
        source = ROOT / f"{module.replace('.', '/')}.py"
        if module.split(".")[0] not in ("job", "tuning", "benchmarks", "tools"):
            continue
        assert source.is_file(), module
        if module in CONFIGURED:
            parsed(arguments, module)
        else:
            for option in (word for word in arguments if word.startswith("--")):
                assert option in options_of(module, source), f"{module} {option}"


@pytest.mark.medium  # seconds, for all pages
@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_a_training_would_start(path, tmp_path):
    """job.train accepts the settings of its commands, and those that the text names."""
    (tmp_path / "own.yaml").write_text("run: {name: own}\n")
    blocks = [
        arguments for module, arguments in modules(path) if module in ("job.train", "job.doctor")
    ]
    for arguments in [*blocks, *options(path.read_text())]:
        check(parsed(arguments, own=tmp_path / "own.yaml"))


def test_what_does_not_start_would_be_found():
    (arguments,) = options(
        "as `python -m job.train --config C --scaling.num_workers N`, or `--scaling.num_workers`"
    )
    with pytest.raises(ValueError, match="more than the plan can feed"):
        check(parsed(arguments[2:]))  # without --config C


def printed() -> list[str]:
    """Return every string of the packages and of Ray's autoscaler; NUL stands for a value."""
    rays = Path(ray.__file__).parent / "autoscaler/_private"
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = []
    for path in [*paths, rays / "autoscaler.py", rays / "aws/config.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_quoted_messages_are_printed():
    """What troubleshooting.md has in quotes is in a message, `...` and X standing for anything."""
    quotes, strings = (
        re.findall(r'"([^"\n]+)"', (ROOT / "docs/troubleshooting.md").read_text()),
        printed(),
    )
    assert len(quotes) > 10
    for quote in quotes:
        words = re.compile(".*".join(map(re.escape, re.split(r"\.\.\.|\bX\b", quote))), re.DOTALL)
        assert any(map(words.search, strings)), quote


def keys() -> set[str]:
    """Sections and keys of the configuration."""
    found, section = set(), ""
    for heading, key in re.findall(r"^## (\S+)|^\| `(\w+)` \|", page(), re.MULTILINE):
        section = heading or section
        found.add(f"{section}.{key}" if key else section)
    return found


def test_keys_that_pages_name_exist():
    """`section.key` is a key of ours or of the reference, or a module, or a name in one."""
    known = keys() | SAME.keys() | NOT_USED.keys() | FREEZES.keys() | set(REFUSED)
    modules = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for path in ROOT.glob("data/**/*.py")
    }
    known |= modules
    assert "train.checkpoint.every_steps" in known
    for path in PAGES:
        named = re.findall(
            r"`((?:run|scaling|data|model|train|eval)(?:\.[a-z_]+)+)`", path.read_text()
        )
        functions = {name for name in named if name.rpartition(".")[0] in modules}
        for name in functions:
            pkgutil.resolve_name(name)  # raises
        assert set(named) - functions <= known, path.name


# what newcomers ask first -> page, section, and what its answer names
ASKED_FIRST = {
    "where do base weights come from": ("fine-tuning", "Which weights", "OedoSoldier"),
    "from scratch or fine-tuned": ("fine-tuning", "From scratch or fine-tuned?", "300,000 steps"),
    "how much speech is needed": ("fine-tuning", "From scratch or fine-tuned?", "3 minutes"),
    "which learning rate": ("fine-tuning", "Learning rate", "2e-4"),
    "how many steps": ("fine-tuning", "Starts by amount of data", "5 minutes"),
    "when to stop": ("fine-tuning", "When to stop", "eval/mel"),
    "which data": ("fine-tuning", "The data matters more than all of this", "2 to 15 s"),
    "which GPU, how much memory": ("hardware", "Memory", "GiB"),
    "what is downloaded": ("hardware", "Downloads", "licence"),
    "what do the losses mean": ("losses", "The generator", "loss/g/mel"),
    "is the discriminator healthy": ("losses", "The generator", "loss/g/dur_gen"),
}


@pytest.mark.parametrize("question", ASKED_FIRST)
def test_what_newcomers_ask_is_answered_with_a_source(question):
    """A public page, or the command that measured it here."""
    page, heading, named = ASKED_FIRST[question]
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    (answer,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert named in answer
    assert "](https://" in answer or "performance.md#" in answer
    if re.search(r"^\|.*\| source \|$", answer, re.M):
        rows = re.findall(r"^\| (?!source|.*\| source \|)[^-].*\|$", answer, re.M)
        assert rows
        assert [row for row in rows if "](https://" not in row.rpartition(" | ")[2]] == []
