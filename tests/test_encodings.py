"""Text files are UTF-8 whatever the locale: no call that opens one leaves it to Python."""

import ast
from collections.abc import Iterator

import pytest

from tests.test_house import ROOT

PACKAGES = ("data", "trainable", "job", "tuning", "tools", "benchmarks", "examples")
SOURCES = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
# of text, whatever their arguments are
TEXT = {"read_text", "write_text", "FileHandler", "TextIOWrapper"}
# of text by their mode, or by `text=True`
OPENS = {"open", "NamedTemporaryFile", "TemporaryFile", "fdopen"}
RUNS = {"run", "Popen", "check_output", "check_call", "call"}


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def mode_of(call: ast.Call) -> str:
    """The mode of an `open`; binary where nothing says so, as of a store's or a zip's own open."""
    given = [each.value for each in call.keywords if each.arg == "mode"]
    # Path.open(mode), but open(file, mode)
    given += call.args if isinstance(call.func, ast.Attribute) else call.args[1:]
    modes = [each.value for each in given if isinstance(each, ast.Constant)]
    told = next(
        (mode for mode in modes if isinstance(mode, str) and set(mode) <= set("rwxabt+")), ""
    )
    if name_of(call) == "open":
        return told or ("r" if isinstance(call.func, ast.Name) or not call.args else "b")
    return told or "b"


def unsaid(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that read or write text in the locale's encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        words = {each.arg: each.value for each in call.keywords}
        text = any(
            isinstance(words.get(key), ast.Constant) and words[key].value
            for key in ("text", "universal_newlines")
        )
        reads_text = (
            name_of(call) in TEXT
            or (name_of(call) in OPENS and "b" not in mode_of(call))
            or (name_of(call) in RUNS and text)
        )
        if reads_text and "encoding" not in words:
            yield call


def test_every_text_file_is_utf_8():
    assert len(SOURCES) > 200
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in SOURCES
        for call in unsaid(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == [], 'give encoding="utf-8"'


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("open(x)", True),
        ("open(x, 'rb')", False),
        ("open(x, mode='a')", True),
        ("path.open()", True),
        ("path.open('w')", True),
        ("path.open('wb')", False),
        ("fs.open(path, 'rb', cache_type='none')", False),
        ("path.read_text()", True),
        ("path.write_text(x)", True),
        ("path.write_text(x, encoding='utf-8')", False),
        ("subprocess.run(x, text=True)", True),
        ("subprocess.run(x)", False),
        ("logging.FileHandler(x)", True),
    ],
)
def test_the_calls_that_are_found(code, text):
    assert bool(list(unsaid(ast.parse(code)))) == text
