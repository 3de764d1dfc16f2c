"""docs/migrating.md followed on a project of the reference trainer, made anew in its layout."""

import contextlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch
import yaml

import job.prepare
import job.train
from data.plan.epoch_plan import Position
from data.shards.manifest import read_manifest
from data.stream.collate import to_batch
from data.stream.loading import RowLoader
from job import convert_config, evaluate, synthesize
from job.on_ray.training import worker_config
from job.settings.cli import to_yaml
from job.settings.config import Config
from job.voice.export import export
from job.voice.voice import Voice
from tests.data.corpus.without_ray import without_ray
from tests.job.conftest import SMALL, overrides
from tests.test_house import ROOT
from tests.tiny import tiny_config, tiny_state
from tests.trainable.networks.tiny import randomise
from tests.trainable.worker.fakes import FakeWorker
from tools.pages import commands
from trainable.run.checkpoint import save_checkpoint
from trainable.run.format import CheckpointInfo
from trainable.weights.published import read_published
from trainable.worker.loop import TrainingLoop
from trainable.worker.setup import set_up
from trainable.worker.train import run_to_end

PAGE = ROOT / "docs/migrating.md"
CORPUS = ROOT / "job/presets/demo_corpus"
STEP = 4000
# neither in the order of their names nor without gaps; the last one has no recordings
SPEAKERS = {"zh_m1": 1, "en_f1": 5, "jp_m1": 0, "en_m1": 3, "zh_f1": 6, "jp_f1": 2, "anna": 7}
CONFIG_YML = {
    "dataset_path": "Data/six",
    "preprocess_text": {"transcription_path": "filelists/six.list"},
    "train_ms": {"model": "models", "config_path": "config.json", "keep_ckpts": 8},
}
# what config.json has no key for, and is small here
OF_THIS_TEST = {
    **dict.fromkeys(("data__bert__zh", "data__bert__jp", "data__bert__en"), "random"),
    "model__bert_channels": 32,
    "model__discriminator_width_divisor": 16,
    "train__max_steps": STEP + 1,
    "train__precision": "auto",
    "data__plan__max_utterances": 4,
    "eval__syntheses": 0,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Bert-VITS2/ with config.yml and the data set six: list, recordings, config.json, weights."""
    root = tmp_path_factory.mktemp("migration") / "Bert-VITS2"
    dataset = root / "Data/six"
    (dataset / "filelists").mkdir(parents=True)
    (root / "config.yml").write_text(yaml.safe_dump(CONFIG_YML))
    shutil.copytree(CORPUS / "wavs", dataset / "audios/wavs")
    lines = (CORPUS / "esd.list").read_text(encoding="utf-8")
    # as preprocess_text.py wants them: from the folder in which it is started
    (dataset / "filelists/six.list").write_text(
        lines.replace("wavs/", "./Data/six/audios/wavs/"), encoding="utf-8"
    )
    write_weights(root.parent / "checkpoint", dataset / "models")
    # the reference copies it there from here
    shutil.copy(dataset / "models/config.json", dataset / "config.json")
    return root


def write_weights(checkpoint: Path, out: Path) -> None:
    """Write G, D, DUR and WD of six speakers and more, as the reference saves them."""
    cfg = tiny_config()
    cfg = replace(cfg, model=replace(cfg.model, n_speakers=8))
    state = tiny_state(cfg)
    randomise(state.nets["g"], 0.05)
    state.position = Position(STEP, 9, 3)
    checkpoint.mkdir()
    info = CheckpointInfo(state.position, "", "", {}, SPEAKERS, 1)
    save_checkpoint(checkpoint, state, info, to_yaml(cfg))
    export(checkpoint, str(out), "reference")


def of_page(module: str, home: Path) -> list[str]:
    """The arguments of a page's command, with the reader's files below `home`."""
    own = ("Bert-VITS2/", "six.yaml", "shards/", "runs/", "hello.wav")
    [words] = [
        shlex.split(line)[3:] for line in commands(PAGE) if line.startswith(f"python -m {module} ")
    ]
    return [str(home / word) if word.startswith(own) else word for word in words]


class TrainsHere:
    """In place of Ray Train: the worker's own loop, in this process."""

    def __init__(self, cfg: Config, owner: str, *_: object):
        self.cfg = worker_config(cfg, owner)

    def stop(self) -> None:
        """Nobody asks."""

    def fit(self) -> SimpleNamespace:
        loop = set_up(self.cfg, FakeWorker())
        loop.open_stream = lambda first: StreamHere(loop, first)
        return SimpleNamespace(return_value=run_to_end(loop))


class StreamHere:
    """In place of Ray Data: the schedule's micro-batches, read as they are asked for."""

    def __init__(self, loop: TrainingLoop, first: Position):
        self.loop, self.first = loop, first

    def __iter__(self) -> Iterator[list[SimpleNamespace]]:
        cfg, schedule, here = self.loop.cfg, self.loop.schedule, self.first
        segment = cfg.train.segment_size // cfg.data.hop_length
        loader = RowLoader(read_manifest(cfg.data.shards), cfg.data, segment)
        while here.step < cfg.train.max_steps:
            plan = schedule.plan(here.epoch)
            loaded = [
                (slot, loader.load(plan.micro_batch(here.epoch_step, slot)))
                for slot in range(cfg.train.micro_batches_per_step)
            ]
            yield [
                SimpleNamespace(slot=slot, batch=to_batch(own.arrays).with_spectrogram(cfg.data))
                for slot, own in loaded
            ]
            here = schedule.after(here)

    def stop(self) -> None:
        """Nothing goes on behind."""


@pytest.fixture
def here(monkeypatch):
    """job.prepare and job.train, with what they ask of Ray done in this process."""
    without_ray(monkeypatch)
    for module in (job.prepare, job.train):
        monkeypatch.setattr(module, "ray_session", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(job.train, "check_device", lambda _: None)
    monkeypatch.setattr(job.train, "settled", lambda cfg: cfg)
    monkeypatch.setattr(job.train, "trainer_of", TrainsHere)
    return {"job.prepare": job.prepare.main, "job.train": job.train.main}


@pytest.mark.medium
def test_a_project_of_the_reference_goes_on_here(project, here, capsys):
    home = project.parent
    assert convert_config.main(of_page("job.convert_config", home)) == 0
    assert "not used: config.yml: dataset_path" in capsys.readouterr().out
    small = [*SMALL, *overrides(**OF_THIS_TEST, run__storage=home / "runs")]
    for module, main in here.items():
        assert main([*of_page(module, home), *small]) == 0
    assert read_manifest(str(home / "shards/six")).speakers == SPEAKERS
    log = (home / "runs/six/logs/rank-0.log").read_text(encoding="utf-8")
    assert f"goes on at step {STEP}, epoch 9" in log
    assert f"step {STEP + 1} of {STEP + 1}: done" in log
    assert re.search(rf"step {STEP + 1}/{STEP + 1} epoch 9: mel .* dur_disc .* lr \S+ \| ", log)
    assert "leaves initial values" not in log
    assert re.search(r"code \w{12}; 1 workers of cpu with \S+, no group; .*, fp32, fast red", log)
    assert re.search(r"train\.precision auto: fp32, cpu with \S+ has no bf16", log)
    assert re.search(r"VITS2; parameters g [\d,]+, .*; 0 tensors frozen", log)

    # one step moves a number by the learning rate at most; another's row is far away
    voice = Voice.load(home / f"runs/six/checkpoint_{STEP + 1:09d}")
    table = voice.g.emb_g.weight
    theirs = read_published(project / f"Data/six/models/G_{STEP}.pth").weights["emb_g.weight"]
    rate = json.loads((project / "Data/six/config.json").read_text())["train"]["learning_rate"]
    for name, row in SPEAKERS.items():
        own = table[voice.speaker_row(name)]
        assert torch.cdist(own[None], theirs).argmin().item() == row, name
        assert (own - theirs[row]).abs().max() < 2 * rate, name

    assert synthesize.main(of_page("job.synthesize", home)) == 0
    wave, rate = soundfile.read(home / "hello.wav")
    assert (rate, len(wave) > 1000) == (44100, True)

    # and the files that it came with are a voice, without a run
    theirs, shards = project / "Data/six/models", home / "shards/six"
    argv = ["--checkpoint", theirs, "--shards", shards, "--out", home / "scores", "--device", "cpu"]
    few = ["--utterances", 2, "--syntheses", 0]
    assert evaluate.main([str(each) for each in (*argv, *few)]) == 0
    scores = json.loads((home / "scores/evaluation.json").read_text())
    assert (scores["step"], scores["scores"]["all"]["mel"] > 0) == (STEP, True)
