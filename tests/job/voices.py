"""A tiny voice of three speakers that was not trained, and its checkpoint."""

from dataclasses import replace
from pathlib import Path

import torch

from data.config import TextConfig
from data.plan.epoch_plan import Position
from job.settings.cli import to_yaml
from job.settings.config import Config
from job.voice.voice import Voice
from tests.tiny import tiny_config, tiny_state
from tests.trainable.networks.tiny import randomise
from trainable.run.checkpoint import save_checkpoint
from trainable.run.format import CheckpointInfo

SAID = {
    "ZH": ("zh", "今天天气真不错。"),
    "JP": ("jp", "おはようございます。"),
    "EN": ("en", "Good morning."),
}


def tiny_voice_config(folder: Path) -> Config:
    """The demo's sizes; its random BERT models lie in the folder."""
    cfg = tiny_config()
    return replace(cfg, data=replace(cfg.data, shards=str(folder / "shards")))


def tiny_checkpoint(folder: Path, text: TextConfig | None = None) -> Path:
    """A checkpoint of random weights: new flows would be the identity, new durations all alike."""
    cfg, checkpoint = tiny_voice_config(folder), folder / "run/checkpoint_000000007"
    cfg = replace(cfg, data=replace(cfg.data, text=text or cfg.data.text))
    checkpoint.mkdir(parents=True)
    state = tiny_state(cfg)
    randomise(state.nets["g"], 0.05)
    state.position = Position(7, 0, 7)
    info = CheckpointInfo(
        state.position, "", "", {"torch": torch.__version__}, {"zh": 0, "jp": 1, "en": 2}, 1
    )
    save_checkpoint(checkpoint, state, info, to_yaml(cfg))
    return checkpoint


def tiny_voice(folder: Path) -> Voice:
    return Voice.load(tiny_checkpoint(folder))
