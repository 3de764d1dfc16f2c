"""The names of a run's files: what they are, and that no other module spells them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainable.networks.registry import AVERAGED
from trainable.run import format as names

ROOT = Path(__file__).parents[3]
SPELLED = re.compile(
    r"(^|/)(config\.yaml|environment\.json|owner\.txt|metrics\.jsonl|metrics/\S*\.jsonl"
    r"|checkpoint_\S*|checksums\.json|state\.json|training\.pt|stuck-rank-.*|rank-.*)(/|$)"
    r"|^(logs|tensorboard)/|/(logs|tensorboard)(/|$)"
)
FILES = sorted(
    path for package in ("trainable", "job", "tuning") for path in (ROOT / package).rglob("*.py")
)


def test_they_are_part_of_the_format_and_never_change():
    """Runs of years ago lie somewhere, and their users' scripts read them."""
    assert names.checkpoint_name(1200) == "checkpoint_000001200"
    assert names.step_of("s3://bucket/run/checkpoint_000001200") == 1200
    assert names.weights_name("g") == "g.safetensors"
    assert names.weights_name(AVERAGED) == "ema.safetensors"
    assert names.metrics_part("000000001") == "metrics/000000001.jsonl"
    assert names.log_name(3) == "logs/rank-3.log"
    assert names.stuck_report_name(3) == "logs/stuck-rank-3.txt"
    of_a_run = (names.CONFIG, names.ENVIRONMENT, names.OWNER, names.METRICS, names.TENSORBOARD)
    assert of_a_run == (
        "config.yaml",
        "environment.json",
        "owner.txt",
        "metrics.jsonl",
        "tensorboard",
    )
    of_a_checkpoint = (names.CHECKSUMS, names.STATE, names.TRAINING)
    assert of_a_checkpoint == ("checksums.json", "state.json", "training.pt")


@pytest.mark.parametrize("name", ["g", "dur", "wd", "d2", "multi_scale"])
def test_any_network_may_be_saved(name):
    assert names.WEIGHTS_NAME.fullmatch(names.weights_name(name))


def constants(tree: ast.AST) -> Iterator[str]:
    """The strings of a module, its docstrings left out."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            is_docstring = isinstance(node, ast.Expr)
            if (
                isinstance(child, ast.Constant)
                and isinstance(child.value, str)
                and not is_docstring
            ):
                yield child.value


def test_no_other_module_spells_them():
    found = [
        f"{path.relative_to(ROOT)}: {value}"
        for path in FILES
        if path != Path(names.__file__)
        for value in constants(ast.parse(path.read_text()))
        if SPELLED.search(value)
    ]
    assert found == []


@pytest.mark.processes
def test_they_are_known_without_torch():
    script = "import sys, trainable.run.format; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
