"""What a run's folder says of its making: configuration, code and environment."""

import hashlib
import json
from importlib.metadata import distributions
from pathlib import Path

from data.files import below, put_file
from job.settings.cli import to_yaml
from job.settings.config import Config
from job.settings.paths import run_folder
from trainable.run.format import CONFIG, ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
GIT = ROOT / ".git"
PACKAGES = ("data", "trainable", "job")


def code_version() -> str:
    """Return the digest of the packages' source.

    It is the same in a checkout and in what `ray job submit` uploads, which is no git repository.
    """
    digest = hashlib.sha256()
    sources = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    for path in sorted(sources):
        name = path.relative_to(ROOT).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """Return the commit that is checked out here; empty where there is no git repository."""
    try:
        head = (GIT / "HEAD").read_text(encoding="utf-8").strip()
        ref = head.removeprefix("ref: ")
        if ref == head:
            return head
        if (GIT / ref).is_file():
            return (GIT / ref).read_text(encoding="utf-8").strip()
        packed = (GIT / "packed-refs").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split()[0] for line in packed if line.endswith(f" {ref}")), "")


def save_description(cfg: Config) -> None:
    """Write config.yaml and environment.json (code version, commit, packages) to the run's folder.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = run_folder(cfg)
    packages = {each.metadata["Name"]: each.version for each in distributions()}
    environment = {
        "code_version": code_version(),
        "commit": commit(),
        "packages": dict(sorted(packages.items())),
    }

    put_file(below(folder, CONFIG), to_yaml(cfg).encode())
    put_file(below(folder, ENVIRONMENT), json.dumps(environment, indent=1).encode())
