"""Private names of Ray stand in one module, which says with which release they were checked."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from job.on_ray import private
from tests.test_house import ROOT

PACKAGES = ("data", "trainable", "job", "tuning", "benchmarks", "tools", "tests")
SOURCE = Path(private.__file__)
PRIVATE_ARGUMENTS = {"_node_ip_address", "_temp_dir"}
# goes to nodes as a single file, without the project
ALONE = ROOT / "job/spot.py"
# have Ray itself read our files, as its commands do
AS_RAYS_COMMANDS = {ROOT / "tests/deploy/test_cluster_files.py", ROOT / "tests/job/test_submit.py"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arguments(tree: ast.AST) -> Iterator[str]:
    """Names of the keyword arguments that a module passes."""
    return (node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg)


def private_names(tree: ast.AST) -> set[str]:
    found = {name for name in imported(tree) if re.match(r"ray\.(.*\.)?_", name)}
    return found | (PRIVATE_ARGUMENTS & set(arguments(tree)))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_module_has_private_names_of_ray(package):
    for path in (ROOT / package).rglob("*.py"):
        if path not in {SOURCE, ALONE, *AS_RAYS_COMMANDS}:
            assert not private_names(ast.parse(path.read_text())), path


def test_the_watcher_of_notices_needs_nothing_of_the_project():
    tree = ast.parse(ALONE.read_text())
    assert not [name for name in imported(tree) if name.split(".")[0] in PACKAGES]
    assert f"Ray {ray.__version__}" in ALONE.read_text()


def test_private_names_are_found():
    tree = ast.parse(
        "from ray._private import state\n"
        "import ray.data._internal.stats\n"
        "from ray.train.torch.config import _TorchBackend\n"
        "ray.init(_temp_dir=None)\n"
    )
    assert len(private_names(tree)) == 4
    assert len(private_names(ast.parse(SOURCE.read_text()))) > 10


def test_they_were_checked_with_the_release_that_is_installed():
    """Each import and each definition tells the release; change them only after checking."""
    told = re.findall(r"Ray (\d+\.\d+\.\d+)", SOURCE.read_text())
    assert set(told) == {ray.__version__}
    tree = ast.parse(SOURCE.read_text())
    definitions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    assert all("Ray 2" in (ast.get_docstring(node) or "") for node in definitions)


def test_all_that_is_listed_is_there():
    assert all(hasattr(private, name) for name in private.__all__)
