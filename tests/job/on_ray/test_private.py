"""Private names of Ray stand in one package, which asks for them and names the supported range."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from job.on_ray import private
from job.on_ray.private import controllers, releases
from job.on_ray.private.releases import BEFORE, FIRST, needs, refusing
from tests.test_house import ROOT

PACKAGES = ("data", "trainable", "job", "tuning", "benchmarks", "tools", "tests")
SOURCES = sorted(Path(private.__file__).parent.glob("*.py"))
PRIVATE_ARGUMENTS = {"_node_ip_address", "_temp_dir"}
# goes to nodes as a single file, without the project
ALONE = ROOT / "job/spot.py"
# have Ray itself read our files, as its commands do
AS_RAYS_COMMANDS = {ROOT / "tests/deploy/test_cluster_files.py", ROOT / "tests/job/test_submit.py"}
# try ours with Ray's own coordinator and dispatchers, and ask its control service as it does
WITH_RAYS_OWN = {
    ROOT / f"tests/job/{name}.py"
    for name in (
        "on_ray/test_sharing",
        "on_ray/test_waiting",
        "on_ray/test_releases",
        "reports/test_console",
    )
}


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
        if path not in {*SOURCES, ALONE, *AS_RAYS_COMMANDS, *WITH_RAYS_OWN}:
            assert not private_names(ast.parse(path.read_text())), path


def test_the_watcher_of_notices_needs_nothing_of_the_project():
    tree = ast.parse(ALONE.read_text())
    assert not [name for name in imported(tree) if name.split(".")[0] in PACKAGES]


def test_private_names_are_found():
    tree = ast.parse(
        "from ray._private import state\n"
        "import ray.data._internal.stats\n"
        "from ray.train.torch.config import _TorchBackend\n"
        "ray.init(_temp_dir=None)\n"
    )
    assert len(private_names(tree)) == 4
    assert sum(len(private_names(ast.parse(path.read_text()))) for path in SOURCES) > 10


def test_the_range_of_releases_is_that_of_the_project():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (of_ray,) = [each for each in told if each.startswith("ray[")]
    first, before = (".".join(map(str, each)) for each in (FIRST, BEFORE))
    assert of_ray == f"ray[data,default,train,tune]>={first},<{before}"


@pytest.mark.parametrize("version", ["2.58.1", "2.61.0", "3.0.0.dev0"])
def test_another_release_is_refused_in_a_line(version, monkeypatch, capsys):
    monkeypatch.setattr(ray, "__version__", version)
    with pytest.raises(SystemExit) as ended, refusing():
        raise AssertionError("not reached")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: Ray {version} is installed, and this code runs with 2.59 to 2.")


def test_a_name_that_is_gone_is_refused_in_a_line(capsys):
    with pytest.raises(SystemExit) as ended, refusing():
        needs(controllers.TrainController, "run", "_soul")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"(TrainController of Ray {ray.__version__} has no _soul): install that" in line
    with pytest.raises(SystemExit), refusing():
        from ray.train import no_such_name  # noqa: F401
    assert "no_such_name" in capsys.readouterr().err


def test_names_that_only_methods_use_are_found():
    needs(controllers.TrainController, "_worker_group")  # set by __init__
    with pytest.raises(AttributeError, match="has no _worker_groups"):
        needs(controllers.TrainController, "_worker_groups")


def test_each_module_asks_for_what_it_changes_or_overrides():
    own = {path for path in SOURCES if path.stem not in ("__init__", "releases")}
    assert len(own) > 5
    assert all("\nneeds(" in path.read_text() for path in own)
    assert releases.release() < BEFORE


def test_all_that_is_listed_is_there():
    assert all(hasattr(private, name) for name in private.__all__)
