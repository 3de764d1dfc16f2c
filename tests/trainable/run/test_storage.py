"""Checkpoints are found where they lie; a damaged one is passed over and the one before is used."""

import shutil
from pathlib import Path

import fsspec
import pytest

from tests.tiny import tiny_config, tiny_state
from tests.trainable.run.test_checkpoint import INFO
from trainable.run.checkpoint import save_checkpoint
from trainable.run.storage import fetched, newest_good, resolve


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with three checkpoints."""
    run = tmp_path_factory.mktemp("run")
    cfg = tiny_config()
    state = tiny_state(cfg)
    for step in (5, 10, 20):
        (run / f"checkpoint_{step:09d}").mkdir()
        save_checkpoint(run / f"checkpoint_{step:09d}", state, INFO, "")
    (run / "checkpoint_manager_snapshot.json").write_text("{}")  # Ray Train's own
    return run


@pytest.fixture(params=["local", "memory"])
def run(request, folder, tmp_path) -> str:
    """The same on a disk, and on fsspec's in-memory file system in place of an object store."""
    if request.param == "local":
        return str(shutil.copytree(folder, tmp_path / "run"))
    fs = fsspec.filesystem("memory")
    for path in filter(Path.is_file, folder.rglob("*")):
        fs.pipe_file(f"/{tmp_path.name}/{path.relative_to(folder)}", path.read_bytes())
    return f"memory://{tmp_path.name}"


def damage(run: str, name: str) -> None:
    fs, root = fsspec.core.url_to_fs(run)
    content = bytearray(fs.cat_file(f"{root}/{name}"))
    content[len(content) // 2] ^= 1
    fs.pipe_file(f"{root}/{name}", bytes(content))


def test_the_newest_is_taken(run):
    assert newest_good(run).endswith("checkpoint_000000020")
    assert resolve(run) == newest_good(run)
    assert resolve(newest_good(run)) == newest_good(run)
    with fetched(newest_good(run)) as folder:
        assert (folder / "g.safetensors").stat().st_size > 10**6


def test_damaged_and_half_uploaded_ones_are_passed_over(run, caplog):
    damage(run, "checkpoint_000000020/g.safetensors")
    fs, root = fsspec.core.url_to_fs(run)
    fs.rm_file(f"{root}/checkpoint_000000010/d.safetensors")
    with caplog.at_level("WARNING", "bert_vits2_ray"):
        assert newest_good(run).endswith("checkpoint_000000005")
    assert "checkpoint_000000020" in caplog.text or "g.safetensors" in caplog.text
    fs.rm_file(f"{root}/checkpoint_000000005/checksums.json")
    assert newest_good(run) is None
    with pytest.raises(ValueError, match="holds no checkpoint"):
        resolve(run)
