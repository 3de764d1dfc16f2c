"""Functions that all ranks must call are marked: what calls a collective is collective itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# who makes collective calls; the rest of trainable knows no ranks
ROOMS = ("distributed", "evaluation", "learning", "run", "weights", "worker")
# A rehearsal is a training step that makes none of its calls.
FILES = sorted(
    path
    for room in ROOMS
    for path in (ROOT / "trainable" / room).glob("*.py")
    if path.name != "rehearsal.py"
)
MARK = "collective"
SUFFIX = "_on_all_ranks"  # the mark of the data's functions, which cannot import the other one
# classes of the data whose constructors are given collective calls, and make them
OF_DATA = {"MicroBatchStream"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, Function]]:
    """Every function with the name that it is called by: its class's, for a constructor."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield (owner if node.name == "__init__" else node.name), node
            yield from functions(node)
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, node.name)
        else:
            yield from functions(node, owner)


def is_marked(function: Function) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == MARK for mark in function.decorator_list)


def used(function: Function) -> set[str]:
    """Names that a function calls or hands on, those of functions inside it left out."""
    found = set()
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function):
            continue
        if isinstance(node, ast.Call):
            for each in (node.func, *node.args, *(keyword.value for keyword in node.keywords)):
                if isinstance(each, ast.Name):
                    found.add(each.id)
                elif isinstance(each, ast.Attribute):
                    found.add(each.attr)
        waiting += ast.iter_child_nodes(node)
    return found


def parsed() -> list[tuple[Path, str, Function]]:
    trees = {path: ast.parse(path.read_text()) for path in FILES}
    return [(path, name, own) for path, tree in trees.items() for name, own in functions(tree)]


def collectives() -> set[str]:
    # nobody calls a `__call__` by that name
    return {name for _, name, own in parsed() if is_marked(own)} - {"__call__"}


def test_there_are_some():
    assert {"broadcast", "on_all_ranks", "Agreement", "evaluate", "train_to_end"} <= collectives()


def test_what_calls_a_collective_is_marked():
    known = collectives() | OF_DATA
    for path, name, own in parsed():
        called = {each for each in used(own) if each in known or each.endswith(SUFFIX)}
        # inside the primitives there are torch's
        if called and not is_marked(own):
            pytest.fail(f"{path.relative_to(ROOT)}: {name} calls {', '.join(sorted(called))}")


@pytest.mark.medium
def test_a_name_is_collective_everywhere_or_nowhere():
    """So that a reader of a call knows, and so does the test before."""
    known = collectives()
    plain = [f"{path.name}: {name}" for path, name, own in parsed() if not is_marked(own)]
    assert not [each for each in plain if each.split(": ")[1] in known]


def test_torch_distributed_is_called_in_one_room():
    for path in sorted((ROOT / "trainable").rglob("*.py")):
        if path.parent.name != "distributed":
            assert "torch.distributed" not in path.read_text(), path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f():\n    broadcast(1)", True),
        ("def f():\n    g(share=broadcast)", True),
        ("def f(self):\n    self.broadcast(1)", True),
        ("def f():\n    def g():\n        broadcast(1)\n    h(g)", False),
        ("def f():\n    return [broadcast(x) for x in y]", True),
        ("def f():\n    g(lambda: broadcast(1))", True),
    ],
)
def test_of_the_test(source, expected):
    (_, own), *_ = functions(ast.parse(source))
    assert ("broadcast" in used(own)) == expected
