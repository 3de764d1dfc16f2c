"""job.evaluate on a run of job.train: its validation's numbers, and a report in a browser."""

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from job import evaluate
from tests.browser import CHROMIUM, browser, opened
from tests.job.voices import tiny_checkpoint
from trainable.run.storage import newest_good, read_state


@pytest.fixture(scope="module")
def evaluation(call, two_workers, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    done = call("job.evaluate", "--checkpoint", two_workers, "--samples", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "speaker" in done.stdout
    return out


def test_one_process_finds_the_numbers_of_two_workers(evaluation, two_workers):
    found = json.loads((evaluation / "evaluation.json").read_text())
    trained = read_state(newest_good(str(two_workers))).scores
    assert found["step"] == 6
    assert {
        f"eval/{tag}": score for tag, score in found["scores"]["all"].items()
    }.items() <= trained.items()
    assert {
        "eval/mcd",
        "eval/mcd_sdp",
        "eval/vuv_error",
        "eval/train_mel",
        "eval/ema_mcd",
    } <= trained.keys()
    assert [v["step"] for v in found["history"]] == [3, 6]
    assert len(found["utterances"]) == 2
    assert [
        "mcd" in {tag for tag, v in u["scores"].items() if v is not None}
        for u in found["utterances"]
    ] == [
        True,
        False,
    ]
    languages = {u["language"] for u in found["utterances"]}
    assert {f"language {name}" for name in languages} < found["scores"].keys()


def test_averaged_weights_have_scores_of_their_own(call, evaluation, two_workers, tmp_path):
    argv = [
        "--checkpoint",
        str(two_workers),
        "--weights",
        "ema",
        "--samples",
        "0",
        "--out",
        str(tmp_path),
    ]
    done = call("job.evaluate", *argv)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "evaluation.json").read_text())["scores"]["all"]
    trained = read_state(newest_good(str(two_workers))).scores
    assert {f"eval/ema_{tag}": score for tag, score in found.items()}.items() <= trained.items()
    assert found["mel"] != trained["eval/mel"]


def stranger(run: Path, folder: Path, scorers: dict) -> Path:
    """A checkpoint of the run whose config.yaml has these scorers, whole by its checksums."""
    shutil.copytree(newest_good(str(run)), folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["eval"]["scorers"] = scorers
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    sums = json.loads((folder / "checksums.json").read_text())
    sums["config.yaml"] = hashlib.sha256((folder / "config.yaml").read_bytes()).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(sums))
    return folder


def test_a_checkpoints_own_scorers_run_only_if_they_are_trusted(call, two_workers, tmp_path):
    target = tmp_path / "pwned"
    scorers = {
        "evil": {"factory": "cProfile:run", "path": f"import os; os.mkdir({str(target)!r})"},
        "program": {"factory": "trainable.evaluation.scorers:torchscript", "path": "any.pt"},
    }
    checkpoint = stranger(two_workers, tmp_path / "checkpoint_000000006", scorers)
    argv = [
        "--checkpoint",
        str(checkpoint),
        "--utterances",
        "1",
        "--samples",
        "0",
        "--out",
        str(tmp_path / "out"),
    ]
    done = call("job.evaluate", *argv)
    assert done.returncode == 0, done.stderr
    for name in scorers:
        assert f"eval.scorers.{name} is left out" in done.stdout
    assert "--trust-scorers" in done.stdout
    assert not target.exists()
    # it is no scorer, but it ran
    assert call("job.evaluate", *argv, "--trust-scorers").returncode != 0
    assert target.exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: .ci/run installs it")
def test_a_browser_shows_the_report(evaluation, tmp_path):
    with browser() as chromium, opened(chromium, (evaluation / "evaluation.html").as_uri()) as page:
        assert page.locator("article").count() == 1
        assert page.locator("article .said").inner_text().strip()
        assert page.locator("article audio").count() == 3
        assert page.locator("article img").count() == 2
        assert page.locator("table").count() == 2
        drawn = page.evaluate(
            "[...document.images].map(image => image.complete && image.naturalWidth)"
        )
        assert all(width > 300 for width in drawn)
        played = page.evaluate(
            """async () => {
                const sound = document.querySelector("audio")
                await sound.play()
                while (sound.currentTime < 0.05) await new Promise(done => setTimeout(done, 20))
                return [sound.currentTime, sound.duration]
            }"""
        )
        assert 0 < played[0] <= played[1] < 20
        page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert (tmp_path / "report.png").stat().st_size > 20_000


def test_what_cannot_be_scored_is_said(call, two_workers, tmp_path):
    done = call("job.evaluate", "--checkpoint", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no checkpoint" in done.stderr


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("voice"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--utterances", "0"], "--utterances is 0: give a number from 1"),
        (["--utterances=-1"], "--utterances is -1"),
        (["--syntheses=-1"], "--syntheses is -1: give a number from 0"),
        (["--samples=-1"], "--samples is -1: give a number from 0"),
        (["--device", "gpu"], "--device is 'gpu'"),
        (["--out", ""], "--out: '' is no path"),
        (["--out", "{}"], "lies in the checkpoint"),
        (["--out", "{}/report"], "lies in the checkpoint"),
        (["--out", "{}/state.json"], "is a file: give the name of a folder"),
        (["--out", "https://127.0.0.1/x"], "cannot be written to"),
        (["--shards", "C:\\shards"], "--shards: .* of Windows"),
    ],
)
def test_options_that_make_no_sense(checkpoint, monkeypatch, argv, message):
    monkeypatch.setattr(evaluate, "score", None)
    words = [word.format(checkpoint) if "{}" in word else word for word in argv]
    with pytest.raises(ValueError, match=message):
        evaluate.main(["--checkpoint", str(checkpoint), "--device", "cpu", *words])


@pytest.mark.parametrize("given", ["{}", "{}/", "{}/.", "."])
def test_the_report_lies_beside_the_checkpoint(checkpoint, monkeypatch, given):
    found = SimpleNamespace(evaluation=SimpleNamespace(samples=[]))
    monkeypatch.setattr(evaluate, "score", lambda *_, **__: found)
    monkeypatch.setattr(evaluate, "described", lambda *_: {"scores": {}})
    monkeypatch.setattr(evaluate, "report_page", lambda *_: "")
    monkeypatch.chdir(checkpoint)
    before = sorted(path.name for path in checkpoint.iterdir())
    argv = ["--checkpoint", given.format(checkpoint), "--device", "cpu"]
    assert evaluate.main(argv) == 0
    assert sorted(path.name for path in checkpoint.iterdir()) == before
    assert (checkpoint.parent / "evaluation_000000007/evaluation.json").exists()
