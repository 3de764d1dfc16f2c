"""Draw figures of the documents from a run: `python -m tools.readme_figures runs/voice`.

Two are the README's: losses, and the sentence that `make train` ends with. With --corpus, the
folder of tools/make_voice_corpus.py, a third one shows a sentence that nobody trained on, recorded
and as the small voice says it.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.axes import Axes

from data.audio.spectrogram import mel_spectrogram
from data.config import DataConfig
from job.reports.plots import panels, png
from job.settings.cli import read_config
from job.voice.source import opened
from job.voice.voice import SpeechRequest, Voice
from tools.make_voice_corpus import SPEAKER, held_out
from trainable.learning.step import mel_parameters
from trainable.run.metrics_file import read_metrics

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
SMALL_VOICE = ROOT / "job/presets/small_voice"
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
    wave, _ = soundfile.read(run / "sample.wav", dtype="float32")
    figure, (panel,) = panels(1, size=(9, 2.6))
    draw(panel, wave, read_config(run / "config.yaml").data)
    return png(figure, DPI)


def recorded_and_spoken(corpus: Path, number: int = 1) -> bytes:
    """Return spectrograms of a held-back sentence, recorded and synthesised: PNG.

    Args:
        corpus: folder of tools/make_voice_corpus.py.
        number: which of its validation sentences, counted from 0.
    """
    line = f"{number:04d}.wav"
    recorded, _ = soundfile.read(corpus / "validation" / line, dtype="float32")
    with opened(str(SMALL_VOICE), speaks_only=True) as folder:
        voice = Voice.load(folder)
    said = voice.say(SpeechRequest(held_out()[number], SPEAKER, "EN"))
    figure, axes = panels(2, size=(4.5, 2.6))
    for panel, wave, title in zip(axes, (recorded, said), ("recorded", "spoken"), strict=True):
        draw(panel, wave, voice.data)
        panel.set_title(title, fontsize=10)
    return png(figure, DPI)


def draw(panel: Axes, wave: np.ndarray, data: DataConfig) -> None:
    """Draw the mel spectrogram of a waveform [S]."""
    parameters = mel_parameters(data, waveform=True)
    mel = mel_spectrogram(torch.from_numpy(wave)[None], **parameters)[0].numpy()
    panel.grid(visible=False)
    panel.imshow(
        mel,
        aspect="auto",
        origin="lower",
        extent=(0, len(wave) / data.sampling_rate, 0, len(mel)),
        vmin=np.percentile(mel, 2),
    )
    panel.set_xlabel("seconds")
    panel.set_ylabel("mel band")


def main() -> None:
    """Write the figures to docs/images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", help="folder of the run of `make train`")
    parser.add_argument("--corpus", type=Path, help="folder of tools/make_voice_corpus.py")
    options = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    if options.run is not None:
        (IMAGES / "training.png").write_bytes(training_curve(options.run))
        (IMAGES / "spectrogram.png").write_bytes(spectrogram(options.run))
    if options.corpus is not None:
        (IMAGES / "small-voice.png").write_bytes(recorded_and_spoken(options.corpus))


if __name__ == "__main__":
    main()
