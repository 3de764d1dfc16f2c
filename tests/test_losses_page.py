"""docs/losses.md has every tag and every metric that a run writes, and no other."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.stream.evaluation import EvaluationUtterance
from job.settings.config import Config
from tests.test_house import ROOT
from tests.tiny import tiny_batch, tiny_config, tiny_state
from tests.trainable.worker.fakes import (
    FakeStream,
    FakeWorker,
    fake_watchdog,
    schedule,
    worker_config,
)
from trainable.config import NotFiniteConfig, ScorerConfig
from trainable.evaluation.evaluate import Evaluation, evaluate, score_tags, validation_tags
from trainable.evaluation.validation import Validator
from trainable.learning.step import TrainingStep
from trainable.networks.registry import loss_tags, networks
from trainable.run.format import TENSORBOARD, TENSORBOARD_EVAL
from trainable.run.metrics_file import ROLLED_BACK, read_metrics
from trainable.run.records import RunLog
from trainable.worker.loop import TrainingLoop

PAGE = (ROOT / "docs/losses.md").read_text(encoding="utf-8")
SCORER = "loudness"
NAMES = [network.name for network in networks()]
SCORES = [*score_tags(1, [SCORER])]
# what stands for what in the page's first columns
STANDS_FOR = {
    "<n>": "[0-9]+",
    "<network>": "|".join(NAMES),
    "<scorer>": SCORER,
    "<score>": "|".join(SCORES),
    "<language>": "ZH|JP|EN",
    "<speaker>": "anna",
}


def first_columns(page: str) -> list[str]:
    """The tags of the page's tables."""
    return re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)


def pattern(tag: str) -> re.Pattern:
    parts = re.split(r"(<\w+>)", tag)
    return re.compile(
        "".join(
            f"(?:{STANDS_FOR[part]})" if part in STANDS_FOR else re.escape(part) for part in parts
        )
    )


def faults(page: str, names: set[str]) -> tuple[set[str], set[str]]:
    """Names that the page misses, and tags of the page that stand for none."""
    patterns = {tag: pattern(tag) for tag in first_columns(page)}
    missing = {name for name in names if not any(p.fullmatch(name) for p in patterns.values())}
    invented = {tag for tag, p in patterns.items() if not any(map(p.fullmatch, names))}
    return missing, invented


def loudness(wave: np.ndarray, *_) -> float:
    return float(np.abs(wave).mean())


class OwnSets(Validator):
    """Validates on utterances in memory, in place of those of shards."""

    def __init__(self, cfg, state):
        self.cfg = cfg.eval
        self.train = cfg.train
        self.state = state
        self.rank = 0
        self.scorers = {SCORER: loudness}
        self.spec = SimpleNamespace(data=cfg.data)
        self.languages = ("ZH", "EN")
        self.sets = {"validation": np.arange(2), "train": np.arange(2)}
        self.manifest = SimpleNamespace(values=lambda *_: self.languages)
        self.damage = SimpleNamespace(raise_on_all_ranks=lambda: None)

    def score_split(self, split: str, cfg) -> Evaluation:
        own = [
            EvaluationUtterance(
                n, n, tiny_batch(tiny_config(), n, utterances=1, frames=60), "text", language
            )
            for n, language in enumerate(self.languages)
        ]
        return evaluate(self.generator, own, 2, cfg, self.spec.data, 7, self.scorers)

    def spoken(self) -> dict[str, np.ndarray]:
        return {"sentence/EN_anna": np.zeros(100, np.float32)}

    def texts(self) -> dict[str, str]:
        return {"sentence/EN_anna": "Good morning."}


def trained(folder: Path) -> Config:
    """A run of one step and one validation, with all that writes a tag switched on."""
    cfg = tiny_config(
        max_steps=1,
        micro_batches_per_step=1,
        ema_decay=0.9,
        measure_mfu=True,
        not_finite=NotFiniteConfig("skip"),
    )
    cfg = replace(cfg, eval=replace(cfg.eval, syntheses=2, samples=1, max_frames=80))
    state = tiny_state(cfg)
    records = RunLog(str(folder), 0, writes=True, not_finite=cfg.train.not_finite)
    TrainingLoop(
        cfg=worker_config(cfg, str(folder)),
        worker=FakeWorker(),
        names=np.array([str(n) for n in range(8)], object),
        schedule=schedule(8),
        open_stream=lambda first: FakeStream(first, 1, lambda number: tiny_batch(cfg, number)),
        state=state,
        train_step=TrainingStep(state, cfg.train, cfg.data),
        records=records,
        validator=OwnSets(cfg, state),
        checkpoints=SimpleNamespace(save_and_report=lambda *_, **__: records.persist()),
        watchdog=fake_watchdog(),
    ).train_to_end()
    return cfg


def shown(folder: Path) -> set[str]:
    """The tags of a folder's event files."""
    board = EventAccumulator(str(folder))
    board.Reload()
    return {tag for kind in ("scalars", "images", "audio") for tag in board.Tags()[kind]}


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> set[str]:
    """What is declared, and what a run has written."""
    folder = tmp_path_factory.mktemp("run")
    cfg = trained(folder)
    (line,) = read_metrics(str(folder))
    written = shown(folder / TENSORBOARD) | shown(folder / TENSORBOARD_EVAL) | line.keys()
    assert {
        "loss/g/mel",
        "eval/mel",
        "eval/ema_mcd",
        "gen/audio_0_True",
        "skipped_g",
        "mfu",
    } <= written
    with_scorer = replace(cfg.eval, scorers={SCORER: ScorerConfig("tests:none", "none")})
    declared = {*loss_tags(NAMES), *validation_tags(cfg.train, with_scorer), ROLLED_BACK}
    declared |= {f"{kind}_{name}" for kind in ("grad_norm", "skipped") for name in NAMES}
    return declared | written


@pytest.mark.medium
def test_the_page_has_every_tag_and_no_other(names):
    assert faults(PAGE, names) == (set(), set())


@pytest.mark.medium
def test_a_row_that_is_missing_or_invented_is_found(names):
    tags = first_columns(PAGE)
    assert len(tags) == len(set(tags)) > 60
    for tag in tags:
        without = PAGE.replace(f"| `{tag}` |", "| |")
        assert faults(without, names)[0], f"another row stands for {tag}"
    assert faults(PAGE + "\n| `loss/g/invented` | |\n", names) == (set(), {"loss/g/invented"})
    assert faults(PAGE, {*names, "loss/g/new"})[0] == {"loss/g/new"}
