"""Draw the README's figures from a run: `python -m tools.readme_figures runs/demo`."""

import sys
from pathlib import Path

import numpy as np
import soundfile
import torch

from data.audio.spectrogram import mel_spectrogram
from job.reports.plots import panels, png
from job.settings.cli import read_config
from trainable.learning.step import mel_parameters
from trainable.run.metrics_file import read_metrics

IMAGES = Path(__file__).parents[1] / "docs/images"
DPI = 120


def training_curve(run: Path) -> bytes:
    """Return a plot of mel, KL and discriminator losses over the run's steps: PNG."""
    lines = read_metrics(str(run))
    titles = {
        "loss/g/mel": "mel L1 x 45",
        "loss/g/kl": "KL",
        "loss/d/total": "multi-period discriminator",
    }
    figure, axes = panels(len(titles), size=(3, 2.6))
    for panel, (tag, title) in zip(axes, titles.items(), strict=True):
        panel.plot([line["step"] for line in lines], [line[tag] for line in lines], linewidth=1)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("global step")
    return png(figure, DPI)


def spectrogram(run: Path) -> bytes:
    """Return the mel spectrogram of the sample that `make train` synthesises: PNG."""
    wave, rate = soundfile.read(run / "sample.wav", dtype="float32")
    parameters = mel_parameters(read_config(run / "config.yaml").data, waveform=True)
    mel = mel_spectrogram(torch.from_numpy(wave)[None], **parameters)[0].numpy()

    figure, (panel,) = panels(1, size=(9, 2.6))
    panel.grid(visible=False)
    panel.imshow(
        mel,
        aspect="auto",
        origin="lower",
        extent=(0, len(wave) / rate, 0, len(mel)),
        vmin=np.percentile(mel, 2),
    )
    panel.set_xlabel("seconds")
    panel.set_ylabel("mel band")
    return png(figure, DPI)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    (IMAGES / "training.png").write_bytes(training_curve(Path(sys.argv[1])))
    (IMAGES / "spectrogram.png").write_bytes(spectrogram(Path(sys.argv[1])))
