"""What Ray Train writes goes where the run's own files go; nothing depends on it."""

import errno
import os
import pickle
from dataclasses import replace

import fsspec
import pytest

import job.on_ray.storage
from data.plan.epoch_plan import Position
from job.on_ray.storage import forget_checkpoint_list, ray_storage
from job.reports.outcome import is_finished
from job.settings.cli import to_yaml
from tests.tiny import tiny_config, tiny_state
from tests.trainable.run.test_checkpoint import INFO
from trainable.run.checkpoint import save_checkpoint


def test_files_are_written_when_they_are_closed(tmp_path):
    fs, path = pickle.loads(pickle.dumps(ray_storage(str(tmp_path))))
    with fs.open_output_stream(f"{path}/list.json") as file:
        file.write(b"{}")
        assert not (tmp_path / "list.json").exists()
    assert (tmp_path / "list.json").read_bytes() == b"{}"
    assert fs == ray_storage(str(tmp_path))[0]


def test_a_full_disk_is_no_reason_to_end_the_workers(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fs, path = ray_storage(str(tmp_path))
    monkeypatch.setattr(job.on_ray.storage, "put_file", full)
    with fs.open_output_stream(f"{path}/list.json") as file:
        file.write(b"{}")
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_the_list_of_checkpoints_is_forgotten(tmp_path, scheme):
    run = f"{scheme}{tmp_path}/run"
    forget_checkpoint_list(run)
    fs, root = fsspec.core.url_to_fs(run)
    fs.makedirs(root)
    fs.pipe_file(f"{root}/checkpoint_manager_snapshot.json", b"{")
    forget_checkpoint_list(run)
    assert fs.ls(root) == []


def test_a_finished_run_is_told_from_one_to_extend(tmp_path, capsys):
    cfg = tiny_config(max_steps=20)
    cfg = replace(cfg, run=replace(cfg.run, name="x", storage=str(tmp_path)))
    more = replace(cfg, train=replace(cfg.train, max_steps=30))
    assert not is_finished(cfg)
    for step in (10, 20):
        folder = tmp_path / f"x/checkpoint_{step:09d}"
        folder.mkdir(parents=True)
        save_checkpoint(
            folder, tiny_state(cfg), replace(INFO, position=Position(step, 0, step)), to_yaml(cfg)
        )
        (tmp_path / "x/config.yaml").write_text(to_yaml(cfg))
        assert is_finished(cfg) == (step == 20)
    assert (
        "the run x is finished: it stands at step 20, train.max_steps is 20"
        in capsys.readouterr().out
    )
    assert not is_finished(more)
    assert (
        "the run x was finished at step 20: it is extended to train.max_steps 30"
        in capsys.readouterr().out
    )
    (folder / "g.safetensors").write_bytes(b"")
    assert not is_finished(cfg)  # from step 10 on, it is trained once more
    assert capsys.readouterr().out == ""
