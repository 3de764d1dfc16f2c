"""The check of a set of reference numbers: it passes on a second set, and fails on wrong ones.

Not collected where REFERENCE_DIR is given: see conftest.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from safetensors.torch import load_file, save_file

from tests.reference import double
from tests.reference.goldens import OWN
from tests.reference.second_set import make
from tests.reference.test_of_the_tests import shifted

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def second(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("second")
    make(folder, OWN)
    return folder


def run(folder: Path, tests: str = "tests/reference") -> subprocess.CompletedProcess[str]:
    options = ["-m", "not front_end", "-q", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", tests, *options]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"REFERENCE_DIR": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.mark.processes
@pytest.mark.slow
def test_the_tests_follow_another_set(second):
    result = run(second)
    assert result.returncode == 0, result.stdout
    summary = result.stdout.splitlines()[-1]
    assert int(re.findall(r"(\d+) passed", summary)[0]) > 100
    assert "skipped" not in summary


@pytest.mark.processes
@pytest.mark.slow
def test_a_set_without_steps_in_double(second, tmp_path):
    """Those in float32 are compared, and the others are skipped with a reason."""
    shutil.copytree(second / "networks", tmp_path / "networks")
    (tmp_path / "networks" / f"{double.NAME}.json").unlink()
    result = run(tmp_path, "tests/reference/test_training_steps.py")
    assert result.returncode == 0, result.stdout
    assert f"the set has no {double.NAME}.json" in result.stdout
    passed, skipped = re.findall(r"(\d+) passed, (\d+) skipped", result.stdout)[0]
    assert int(passed) > 10
    assert int(skipped) > 0


@pytest.mark.slow
def test_the_tests_see_what_is_off(second, tmp_path):
    """One number off in each kind of file: the test of each fails, and no other."""
    networks = tmp_path / "networks"
    shutil.copytree(second / "networks", networks)
    expected = set()

    def tensor(file: str, key: str, *tests: str) -> None:
        tensors = load_file(networks / f"{file}.safetensors")
        save_file(tensors | {key: shifted(tensors[key])}, networks / f"{file}.safetensors")
        expected.update(tests)

    tensor("generator_resblock1", "out.o", "test_networks.py::test_network[generator_resblock1]")
    tensor("losses", "out.kl", "test_losses.py::test_losses[losses]")
    tensor("commons", "out.path", "test_losses.py::test_commons[commons]")
    tensor("mel_processing", "out.mel", "test_mels.py::test_mels[mel_processing]")
    tensor("maximum_path", "01.path", "test_alignment.py::test_path[01-cpu]")

    steps = json.loads((networks / "train_steps.json").read_text())
    steps["steps"][0]["scalars"]["loss/g/kl"] *= 1.01
    steps["steps"][0]["grads"]["d"]["discriminators.0.conv_post.bias"][1] *= 1.01
    steps["steps"][0]["params"]["g"]["enc_p.proj.weight"][2] *= 1.01
    (networks / "train_steps.json").write_text(json.dumps(steps))
    for test in ("test_scalars[0-{}]", "test_gradients[{}]", "test_parameters[{}]"):
        expected.update(
            f"test_training_steps.py::{test.format(reduction)}" for reduction in ("fast", "exact")
        )

    steps = json.loads((networks / f"{double.NAME}.json").read_text())
    last = steps["steps"][-1]
    last["scalars"]["loss/g/kl"] *= 1 + 1e-8
    last["grads"]["d"]["discriminators.0.conv_post.bias"][1] *= 1 + 1e-8
    last["params"]["g"]["enc_p.proj.weight"][2] *= 1 + 1e-8
    last["params"]["g"][last["zero_gradient"]["g"][0]][0] += 1e-6
    (networks / f"{double.NAME}.json").write_text(json.dumps(steps))
    for kind in get_args(double.Kind):
        expected.add(f"test_training_steps.py::test_double[{kind}-{len(steps['steps']) - 1}]")

    sampler = json.loads((networks / "bucket_sampler.json").read_text())
    sampler["cases"][0]["batches"][0].reverse()
    (networks / "bucket_sampler.json").write_text(json.dumps(sampler))
    expected.add("test_bucket_sampler.py::test_batches[many]")

    names = json.loads((networks / "state_dict_names.json").read_text())
    case = next(iter(names))
    names[case]["dec.conv_pre.bias"][0] += 1
    (networks / "state_dict_names.json").write_text(json.dumps(names))
    expected.add(f"test_networks.py::test_state_dict[{case}]")

    manifest = json.loads((networks / "manifest.json").read_text())
    for file, entry in manifest["files"].items():
        entry["sha256"] = hashlib.sha256((networks / file).read_bytes()).hexdigest()
    (networks / "manifest.json").write_text(json.dumps(manifest))

    result = run(tmp_path)
    assert result.returncode == 1
    failed = re.findall(
        r"^FAILED tests/reference/(\S+::\w+(?:\[.*?\])?)(?: - |$)", result.stdout, re.MULTILINE
    )
    assert set(failed) == expected
