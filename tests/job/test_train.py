"""The main job as users run it: real Ray, real worker processes, continued by another number."""

import hashlib
import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from ray.train import Result
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.plan.epoch_plan import Position
from data.shards.manifest import read_manifest
from data.stream.spec import StreamSpec, schedule_of
from job.reports.outcome import summary
from job.settings.cli import read_config
from job.settings.config import Config, RunSettings
from job.voice.export import export
from job.voice.voice import Voice
from tests.job.conftest import OVER_AN_EPOCH, arguments, metrics
from tests.job.on_ray.test_results import listed
from tests.job.voices import tiny_checkpoint
from trainable.learning.report import crc
from trainable.learning.state import build_networks
from trainable.weights.published import read_published
from trainable.weights.slm import load_slm
from trainable.weights.warm_start import read_checkpoint, warm_start

# of the design document of the reference trainer (train_and_evaluate, evaluate)
SCALARS = [
    "loss/g/total",
    "loss/d/total",
    "loss/wd/total",
    "learning_rate",
    "grad_norm_d",
    "grad_norm_g",
    "grad_norm_dur",
    "grad_norm_wd",
    "loss/g/fm",
    "loss/g/mel",
    "loss/g/dur",
    "loss/g/kl",
    "loss/g/lm",
    "loss/g/lm_gen",
    *(f"loss/{part}/{i}" for part in ("g", "d_r", "d_g") for i in range(6)),
    "loss/dur_disc/total",
    "loss/dur_disc_r/0",
    "loss/dur_disc_g/0",
    "loss/g/dur_gen",
    "loss/g/dur_gen_0",
]
IMAGES = ["slice/mel_org", "slice/mel_gen", "all/mel", "all/attn"]
EVAL_IMAGES = ["gen/mel_0", "gt/mel_0", "gen/attn_0"]
EVAL_AUDIO = ["gen/audio_0_True", "gen/audio_0_False", "gt/audio_0"]
SENTENCES = {"EN": "en_f1", "ZH": "zh_f1", "JP": "jp_f1"}


def parameters(run: Path, rank: int) -> str:
    return re.findall(r"parameters ([0-9a-f]{64})", (run / f"logs/rank-{rank}.log").read_text())[-1]


@pytest.mark.parametrize(
    ("storage", "file"),
    [("/runs", "metrics.jsonl"), ("memory://runs", "metrics/<first step>.jsonl")],
)
def test_the_summary_names_the_metrics_that_are_there(storage, file):
    cfg = Config(run=RunSettings("a", storage))
    assert f" {storage}/a/{file}\n" in summary(cfg, 4)


def test_the_command_says_where_the_run_stands_and_what_it_has_written(observed):
    assert "step 6 of 6" in observed.said
    for what in ("shards", "checkpoint", "TensorBoard", "audio"):
        assert f"  {what} " in observed.said


def test_every_step_has_its_line(two_workers):
    lines = metrics(two_workers)
    assert [line["step"] for line in lines] == list(range(1, 7))
    for line in lines:
        assert line["world_size"] == 2
        assert line.keys() >= set(SCALARS) - {"learning_rate"} | {
            "lr",
            "epoch",
            "seconds",
            "utterances",
        }
        assert line["loss/g/total"] == pytest.approx(
            sum(
                line[f"loss/g/{t}"]
                for t in ("fm", "mel", "dur", "kl", "lm", "lm_gen", "dur_gen", *range(6))
            ),
            rel=1e-4,
        )


def test_both_ranks_hold_the_same_parameters(two_workers):
    assert parameters(two_workers, 0) == parameters(two_workers, 1)


def test_what_was_consumed_is_the_plan(two_workers, shards):
    cfg, manifest = read_config(two_workers / "config.yaml"), read_manifest(str(shards))
    G, segment = cfg.train.micro_batches_per_step, cfg.train.segment_size // cfg.data.hop_length
    spec = StreamSpec.of_new_run(cfg.data, manifest.digest, cfg.train.seed, G, segment)
    schedule, position = schedule_of(spec), Position()
    used: list[np.ndarray] = []
    for line in metrics(two_workers):
        plan = schedule.plan(position.epoch)
        batches = [plan.micro_batch(position.epoch_step, j) for j in range(G)]
        assert line["consumed"] == [crc(batch) for batch in batches]
        assert line["epoch"] == position.epoch
        assert line["utterances"] == sum(map(len, batches))
        used += batches
        position = schedule.after(position)
    first_epoch = np.concatenate(used[: schedule.plan(0).steps * G])
    assert set(first_epoch) == set(manifest.rows("train"))


def test_tensorboard_holds_all_tags_of_the_seed(two_workers):
    def tags(folder: Path) -> dict[str, list[str]]:
        board = EventAccumulator(str(folder))
        board.Reload()
        return board.Tags()

    written = tags(two_workers / "tensorboard")
    assert set(written["scalars"]) >= set(SCALARS)
    rates = {
        "rate/steps_per_s",
        "rate/utterances_per_s",
        "share/padding",
        "share/waiting_for_data",
        "memory/peak_gib",
    }
    assert set(written["scalars"]) >= rates | {"workers", "epoch"}
    assert set(written["images"]) >= set(IMAGES)
    evaluation = tags(two_workers / "tensorboard/eval")
    assert set(evaluation["images"]) >= set(EVAL_IMAGES)
    assert set(evaluation["audio"]) >= set(EVAL_AUDIO)
    assert {tag for tag in evaluation["audio"] if tag.startswith("sentence/")} == {
        f"sentence/{language}_{speaker}" for language, speaker in SENTENCES.items()
    }
    assert set(evaluation["scalars"]) >= {
        "eval/mel",
        "eval/kl",
        "eval/dur",
        "eval/mcd",
        "eval/train_mel",
    }


def test_the_run_describes_itself(two_workers):
    assert read_config(two_workers / "config.yaml").run.name == two_workers.name
    assert (two_workers / "environment.json").stat().st_size > 500
    newest = sorted(two_workers.glob("checkpoint_0*"))
    kept = [
        "03",
        "04",
        "06",
    ]  # the newest three; among them the better of 3 and 6, and 4, a second step
    scores = [
        json.loads((two_workers / f"checkpoint_0000000{step}/state.json").read_text())["scores"]
        for step in kept
    ]
    assert [bool(own) for own in scores] == [True, False, True]
    assert [p.name for p in newest] == [f"checkpoint_0000000{step}" for step in kept]
    assert (newest[-1] / "config.yaml").read_text() == (two_workers / "config.yaml").read_text()
    result, last = Result.from_path(two_workers), metrics(two_workers)[-1]
    assert listed(result) == [3, 4, 6]
    assert {tag: result.metrics[tag] for tag in ("loss/g/mel", "grad_norm_g", "seconds")} == {
        tag: pytest.approx(last[tag]) for tag in ("loss/g/mel", "grad_norm_g", "seconds")
    }
    assert result.metrics["eval/mel"] == scores[-1]["eval/mel"]
    assert result.get_best_checkpoint("eval/mel", "min").path.endswith(("3", "6"))


def with_other_code(checkpoint: Path) -> None:
    """Make a checkpoint say that another version of the code wrote it."""
    state, sums = checkpoint / "state.json", checkpoint / "checksums.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"code_version": "other-code"}))
    digests = json.loads(sums.read_text()) | {
        "state.json": hashlib.sha256(state.read_bytes()).hexdigest()
    }
    sums.write_text(json.dumps(digests))


def test_a_finished_run_is_left_alone(call, shards, two_workers, monkeypatch):
    """A job that is submitted again succeeds, starts no workers and changes nothing."""
    monkeypatch.setattr("job.on_ray.cluster.ray_session", lambda _: pytest.fail("it asks for Ray"))
    before = {path: path.stat().st_mtime_ns for path in two_workers.rglob("*") if path.is_file()}
    options = OVER_AN_EPOCH | {"train__checkpoint__every_steps": 2, "eval__every_steps": 3}
    argv = arguments(shards, two_workers.parent, run__name=two_workers.name, **options)
    done = call("job.train", *argv)
    assert done.returncode == 0, done.stderr
    assert f"the run {two_workers.name} is finished: it stands at step 6" in done.stdout
    assert "train.max_steps is 6. Nothing is trained" in done.stdout
    assert f"{two_workers}/checkpoint_000000006" in done.stdout
    assert {
        path: path.stat().st_mtime_ns for path in two_workers.rglob("*") if path.is_file()
    } == before


@pytest.fixture(scope="module")
def resumed(call, ray_local, shards, two_workers, tmp_path_factory) -> tuple[Path, str]:
    """A copy of the run of two, continued by one worker to step 7, and what was printed.

    Its newest checkpoint is truncated, and another version of the code wrote the one before.
    """
    storage = tmp_path_factory.mktemp("runs")
    run = Path(shutil.copytree(two_workers, storage / two_workers.name))
    newest = run / "checkpoint_000000006/training.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    with_other_code(run / "checkpoint_000000004")
    # Ray Train's own, cut off by a full disk
    (run / "checkpoint_manager_snapshot.json").write_text('{"ray_vers')
    options = OVER_AN_EPOCH | {
        "train__max_steps": 7,
        "train__checkpoint__every_steps": 20,
        "train__checkpoint__keep": 1,
        "scaling__num_workers": 1,
    }
    done = call("job.train", *arguments(shards, storage, run__name=two_workers.name, **options))
    assert done.returncode == 0, done.stderr
    return run, done.stdout


def test_a_truncated_checkpoint_is_passed_over_and_the_run_goes_on_from_the_one_before(resumed):
    run, said = resumed
    assert re.search("skips the checkpoint .*06: .* training.pt is damaged", said)
    assert f"resumes at step 4 from {run}/checkpoint_000000004" in said
    assert "the checkpoint was written by other-code" in said
    assert "removes checkpoint_000000006: it is damaged" in said
    assert [line["step"] for line in metrics(run)] == list(range(1, 8))
    assert "checkpoint_000000007" in said
    assert listed(Result.from_path(run))[-1] == 7


def test_one_and_two_workers_see_the_same_utterances_and_start_with_the_same_losses(
    resumed, two_workers
):
    one, two = metrics(resumed[0]), metrics(two_workers)
    assert [line["world_size"] for line in one] == [2] * 4 + [1] * 3
    assert [line["consumed"] for line in one[:6]] == [line["consumed"] for line in two]
    for tag in SCALARS:
        if tag.startswith("loss"):
            assert one[4][tag] == pytest.approx(two[4][tag], rel=1e-5), tag
    for ours, theirs in zip(one, two, strict=False):
        assert ours["loss/g/mel"] == pytest.approx(theirs["loss/g/mel"], rel=0.05)


def test_a_resumed_run_shows_no_step_twice(resumed):
    board = EventAccumulator(str(resumed[0] / "tensorboard"))
    board.Reload()
    steps = [event.step for event in board.Scalars("loss/g/mel")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 7


def test_synthesize_speaks_every_language(call, two_workers, tmp_path):
    said = {
        "ZH": ("zh_f1", "今天天气真不错。"),
        "JP": ("jp_f1", "おはようございます。"),
        "EN": ("en_f1", "Good morning."),
    }
    for language, (speaker, text) in said.items():
        out = tmp_path / f"{language}.wav"
        done = call(
            "job.synthesize",
            "--checkpoint",
            str(two_workers),
            "--text",
            text,
            "--speaker",
            speaker,
            "--language",
            language,
            "--out",
            str(out),
        )
        assert done.returncode == 0, done.stderr
        wave, rate = soundfile.read(out)
        assert rate == 44100
        assert 0.05 < len(wave) / rate < 30
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 0


def test_a_checkpoint_loads_without_pickled_code(two_workers):
    for path in two_workers.glob("checkpoint_*/training.pt"):
        state = torch.load(path, weights_only=True)
        assert state["moments"].keys() == {"g", "d", "dur", "wd"}


def test_export_of_a_run_starts_another(call, two_workers, tmp_path):
    """What job.export writes, train.init_from reads, speakers and all."""
    out = tmp_path / "exported"
    done = call("job.export", "--checkpoint", str(two_workers), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "model.bert_channels is 32; the reference's networks take 1024" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "G_6.pth",
        "D_6.pth",
        "DUR_6.pth",
        "WD_6.pth",
        "config.json",
    }
    newest = sorted(two_workers.glob("checkpoint_0*"))[-1]
    cfg = read_config(newest / "config.yaml")
    nets = build_networks(
        cfg.model, cfg.train, cfg.data, load_slm(cfg.model.slm, cfg.data.sampling_rate)
    )
    warm_start(str(out), nets)
    for name, net in nets.items():
        weights = load_file(newest / f"{name}.safetensors")
        assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())
    again = call("job.export", "--checkpoint", str(two_workers), "--out", str(out))
    assert again.returncode == 2
    assert "already" in again.stderr


def test_averaged_weights_speak_and_are_exported_without_an_optimizer(two_workers, tmp_path):
    newest = sorted(two_workers.glob("checkpoint_0*"))[-1]
    averaged, raw = (load_file(newest / f"{name}.safetensors") for name in ("ema", "g"))
    spoken = Voice.load(newest, weights="ema").g.state_dict()
    assert all(torch.equal(averaged[key], value) for key, value in spoken.items())
    assert any(not torch.equal(averaged[key], raw[key]) for key in raw)
    export(newest, str(tmp_path), "reference", generator="ema")
    written = read_published(tmp_path / "G_6.pth", optimizer=True)
    assert all(torch.equal(averaged[key], value) for key, value in written.weights.items())
    assert written.moments is None
    assert read_published(tmp_path / "D_6.pth", optimizer=True).moments is not None


def test_a_checkpoint_without_averaged_weights_says_so(tmp_path):
    checkpoint = tiny_checkpoint(tmp_path)
    for load in (
        partial(Voice.load, checkpoint, weights="ema"),
        partial(read_checkpoint, checkpoint, generator="ema"),
    ):
        with pytest.raises(ValueError, match=r"train\.ema_decay 0"):
            load()


@pytest.mark.slow
def test_a_run_that_gets_no_better_ends_by_itself(train, tmp_path):
    """Steps too small to change a weight: the first validation stays the best."""
    options = {
        "run__name": "idle",
        "train__max_steps": 20,
        "train__learning_rate": 1e-12,
        "eval__every_steps": 1,
    }
    options |= {"eval__stop_after": 2, "scaling__num_workers": 1}
    done = train(tmp_path, **options)
    assert [line["step"] for line in metrics(tmp_path / "idle")] == [1, 2, 3]
    assert (
        "early stopping: eval/mel did not improve in 2 validations (eval.stop_after)"
        in (tmp_path / "idle/logs/rank-0.log").read_text()
    )
    assert "step 3 of 20" in done.stdout
    again = train(tmp_path, **options)
    assert "raise eval.stop_after to continue" in again.stdout
    assert len(metrics(tmp_path / "idle")) == 3
