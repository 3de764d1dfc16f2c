"""Draws the README's figures from a run: `python -m tools.readme_figures runs/demo`."""

import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure

from data.audio.spectrogram import mel_spectrogram
from job.settings.cli import read_config
from trainable.learning.step import mel_parameters
from trainable.run.records import read_metrics

IMAGES = Path(__file__).parents[1] / "docs/images"


def training_curve(run: Path) -> None:
    """Mel, KL and discriminator losses over the run's steps."""
    lines = read_metrics(str(run))
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    panels = {
        "loss/g/mel": "mel L1 x 45",
        "loss/g/kl": "KL",
        "loss/d/total": "multi-period discriminator",
    }
    for axes, (tag, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.plot([line["step"] for line in lines], [line[tag] for line in lines], linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("global step")
        axes.grid(alpha=0.3)
    figure.savefig(IMAGES / "training.png", dpi=120)


def spectrogram(run: Path) -> None:
    """The mel spectrogram of the sample that `make train` synthesises."""
    wave, rate = soundfile.read(run / "sample.wav", dtype="float32")
    parameters = mel_parameters(read_config(run / "config.yaml").data, waveform=True)
    mel = mel_spectrogram(torch.from_numpy(wave)[None], **parameters)[0].numpy()
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.add_subplot()
    seconds = len(wave) / rate
    axes.imshow(
        mel,
        aspect="auto",
        origin="lower",
        extent=(0, seconds, 0, len(mel)),
        vmin=np.percentile(mel, 2),
    )
    axes.set_xlabel("seconds")
    axes.set_ylabel("mel band")
    figure.savefig(IMAGES / "spectrogram.png", dpi=120)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    training_curve(Path(sys.argv[1]))
    spectrogram(Path(sys.argv[1]))
