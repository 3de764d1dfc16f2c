"""A training state and batches small enough for a test, with no files and no Ray."""

import functools
from dataclasses import replace
from pathlib import Path

import torch

from data.stream.collate import TtsBatch
from job.settings.cli import read_config
from job.settings.config import Config
from trainable.learning.state import TrainState, build_networks
from trainable.weights.slm import load_slm

DEMO = Path(__file__).parents[1] / "job/presets/demo.yaml"


@functools.cache
def demo_config() -> Config:
    """Return the demo preset; reading it takes as long as a training step of it."""
    return read_config(DEMO)


def tiny_config(**train) -> Config:
    """The demo preset with a shorter segment, a shorter flow and one kernel per residual block.

    Keyword arguments go to its section train.
    """
    cfg = demo_config()
    blocks = {"resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1, 3),)}
    return replace(
        cfg,
        model=replace(cfg.model, n_flow_layer=2, **blocks),
        train=replace(cfg.train, **{"segment_size": 4096} | train),
    )


def tiny_state(cfg: Config) -> TrainState:
    slm = load_slm(cfg.model.slm, cfg.data.sampling_rate)
    return TrainState(
        build_networks(cfg.model, cfg.train, cfg.data, slm), slm, cfg.model, cfg.train
    )


def tiny_batch(
    cfg: Config, seed: int, utterances: int = 2, phones: int = 21, frames: int = 40
) -> TtsBatch:
    """Random text and sound; the last utterance is shorter than the others."""
    g = torch.Generator().manual_seed(seed)

    def integers(high: int) -> torch.Tensor:
        return torch.randint(0, high, (utterances, phones), generator=g)

    tokens = 7
    lengths = torch.tensor([frames] * (utterances - 1) + [frames - 9])
    return TtsBatch(
        rows=torch.arange(utterances),
        x=integers(100),
        x_lengths=torch.tensor([phones] * (utterances - 1) + [phones - 4]),
        tone=integers(11),
        language=integers(3),
        bert=torch.randn(utterances, tokens, cfg.model.bert_channels, generator=g).half(),
        token_index=integers(tokens),
        y=0.1 * torch.randn(utterances, 1, frames * cfg.data.hop_length, generator=g),
        y_lengths=lengths * cfg.data.hop_length,
        spec_lengths=lengths,
        speakers=torch.arange(utterances) % max(1, cfg.model.n_speakers),
    ).with_spectrogram(cfg.data)
