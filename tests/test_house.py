"""The house: what users upload, install and pin."""

import re
import subprocess
from collections import Counter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "job", "trainable", "tuning")
PACKAGES = (*ROOMS, "benchmarks")


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.processes
def test_gitignore_hides_no_package():
    """`ray job submit --working-dir .` uploads nothing that .gitignore names."""
    seen = set(tracked())
    sources = {
        p.relative_to(ROOT).as_posix() for name in PACKAGES for p in (ROOT / name).rglob("*.py")
    }
    assert sources
    assert sources <= seen


def test_no_installed_distribution_owns_our_packages():
    installed = packages_distributions()
    assert not [name for name in PACKAGES if name in installed]


def test_no_room_has_more_than_twelve_modules():
    rooms = Counter(
        path.parent.relative_to(ROOT).as_posix()
        for name in ROOMS
        for path in (ROOT / name).rglob("*.py")
        if path.name != "__init__.py"
    )
    assert rooms
    assert {room: number for room, number in rooms.items() if number > 12} == {}


def test_locks_pin_everything_and_name_no_host():
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert "://" not in text
        names = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert len(names) > 80
        assert all(re.match(r"[a-z0-9._-]+(\[[a-z0-9,._-]+\])?==", line) for line in names)
        assert {"torch==2.11.0", "torchaudio==2.11.0", "ray==2.60.0"} <= {
            line.split(" ")[0] for line in names
        }


@pytest.mark.processes
def test_no_file_names_a_registry_or_a_folder_of_somebodys_machine():
    hosts = re.compile(
        r"(pypi|pythonhosted|deb\.debian|registry\.npmjs)\.org|(?<![\w.])/(work|root/\.pyenv)/"
    )
    for name in tracked():
        if (
            Path(name).suffix in {".py", ".md", ".yaml", ".toml", ".lock", ".txt", ".list", ""}
            and name != "tests/test_house.py"
        ):
            found = hosts.search((ROOT / name).read_text(encoding="utf-8", errors="ignore"))
            assert not found, f"{name}: {found}"
