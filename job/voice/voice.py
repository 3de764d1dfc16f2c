"""A voice that speaks: a checkpoint's generator with the front ends and BERT models that it was trained with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.audio.recording import decode_audio, read_audio
from data.audio.spectrogram import spectrogram
from data.bert.reading import Reading, TextReader
from data.config import DataConfig
from data.stream.collate import features_of_phones, pad
from data.text.marked import marked, parse, sentences
from job.settings.cli import read_config
from trainable.learning.state import build_generator
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.run.checkpoint import load_weights
from trainable.run.format import CheckpointInfo, read_info


@dataclass(frozen=True)
class Speech:
    """What is said, and how.

    Attributes:
        text: may change its language by the marks `[ZH]`, `[JP]` and `[EN]`.
        speaker: a name of the training data; none for a voice without a speaker table.
        language: of LANGUAGES, of what stands before the first mark.
        sdp_ratio: share of the stochastic duration predictor, 0 to 1.
        noise_scale: variation of the sound.
        noise_scale_w: variation of the rhythm.
        length_scale: above 1 slower, below 1 faster.
        seed: equal seeds give equal audio.

    Raises:
        ValueError: a value out of its range.
    """

    text: str
    speaker: str | None = None
    language: str | None = None
    sdp_ratio: float = 0.2
    noise_scale: float = 0.6
    noise_scale_w: float = 0.8
    length_scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.sdp_ratio <= 1:
            raise ValueError(f"sdp_ratio is {self.sdp_ratio}: give a share from 0 to 1")
        for name in ("noise_scale", "noise_scale_w"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: give 0 or more")
        if not 0 < self.length_scale < math.inf:
            raise ValueError(f"length_scale is {self.length_scale}: give a factor above 0")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: give a number of 64 bits")

    def by_sentence(self) -> list["Speech"]:
        """The same, a sentence each.

        Raises:
            ValueError: a language is missing or unknown, or there is no text.
        """
        return [
            replace(self, text=marked(parts))
            for parts in sentences(parse(self.text, self.language))
        ]


@dataclass(frozen=True)
class Utterance:
    """A speech that has been read: ready for the network.

    Attributes:
        speech: what is said, and how.
        reading: of its text.
        speaker: row of the speaker table.
    """

    speech: Speech
    reading: Reading
    speaker: int


class Voice:
    """A generator ready to speak.

    Args:
        g: in evaluation mode, on the device that is to compute.
        data: the configuration that it was trained with.
        info: of its checkpoint.
        recording: [samples] of the speaker at data.sampling_rate, for a voice without a speaker
            table.
    """

    def __init__(
        self,
        g: SynthesizerTrn,
        data: DataConfig,
        info: CheckpointInfo,
        recording: np.ndarray | None = None,
    ) -> None:
        if g.n_speakers == 0 and recording is None:
            raise ValueError(
                "this voice has no speaker table: give a recording of the speaker (--reference)"
            )
        self.g, self.data, self.info = g, data, info
        self.device = next(g.parameters()).device
        self.reader = TextReader(data, str(self.device))
        self.reference: Tensor | None = None  # [1, spec, T]
        if recording is not None:
            wave = torch.from_numpy(recording)[None].to(self.device)
            self.reference = spectrogram(wave, data.filter_length, data.hop_length, data.win_length)

    @classmethod
    def load(
        cls, folder: Path, device: str = "cpu", reference: str | None = None, weights: str = "g"
    ) -> "Voice":
        """Load the generator of a checkpoint.

        Args:
            folder: of the checkpoint.
            device: that computes.
            reference: file of a recording of the speaker, for a voice without a speaker table.
            weights: which of GENERATORS speaks.

        Raises:
            ValueError: a voice without a speaker table and no recording, or one that cannot be
                decoded.
            CheckpointError: it is damaged, or does not hold these weights.
        """
        info, cfg = read_info(folder), read_config(folder / "config.yaml")
        g = build_generator(cfg.model, cfg.train.segment_size, cfg.data)
        load_weights(folder, weights, g)
        recording = None if reference is None else decode_audio(read_audio(reference), cfg.data)
        return cls(g.eval().to(device), cfg.data, info, recording)

    def speaker_row(self, speaker: str | None) -> int:
        """The row of the speaker table; 0 where there is no table.

        Raises:
            ValueError: an unknown speaker.
        """
        if self.g.n_speakers == 0:
            return 0
        if speaker not in self.info.speakers:
            raise ValueError(
                f"no speaker {speaker!r}; this voice has: {', '.join(sorted(self.info.speakers))}"
            )
        return self.info.speakers[speaker]

    def read(self, speech: Speech) -> Utterance:
        """Read a text.

        Raises:
            ValueError: an unknown speaker or language, or a text that the front end cannot read.
        """
        row = self.speaker_row(speech.speaker)
        return Utterance(speech, self.reader(parse(speech.text, speech.language)), row)

    @torch.no_grad()
    def speak(self, utterances: Sequence[Utterance]) -> list[np.ndarray]:
        """Speak utterances in one batch.

        Each draws its noise from its own seed, on the CPU, so that its audio depends, up to
        rounding, neither on its neighbours nor on the device.

        Returns:
            A waveform each, float32 [samples], at data.sampling_rate.
        """
        readings, speeches = [u.reading for u in utterances], [u.speech for u in utterances]
        generators = [torch.Generator().manual_seed(speech.seed) for speech in speeches]
        features = [self._features(*pair) for pair in zip(readings, generators, strict=True)]
        zh, jp, en = (self._padded([own[i] for own in features]).transpose(1, 2) for i in range(3))
        lengths = [len(reading.x) for reading in readings]
        prior = self.g.plan(
            self._padded([reading.x for reading in readings]),
            torch.tensor(lengths, device=self.device),
            torch.tensor([u.speaker for u in utterances], device=self.device),
            self._padded([reading.tone for reading in readings]),
            self._padded([reading.language for reading in readings]),
            zh,
            jp,
            en,
            noise=self._noise(generators, 2, lengths),
            noise_scale_w=self._column(speeches, lambda speech: speech.noise_scale_w),
            length_scale=self._column(speeches, lambda speech: speech.length_scale),
            sdp_ratio=self._column(speeches, lambda speech: speech.sdp_ratio),
            y=self.reference,
        )
        frames = prior.frames().tolist()
        noise = self._noise(generators, prior.m_p.shape[1], frames)
        noise_scale = self._column(speeches, lambda speech: speech.noise_scale)
        waves = (
            self.g.render(prior, noise, noise_scale, apart=len(utterances) > 1)
            .o[:, 0]
            .float()
            .cpu()
            .numpy()
        )
        return [wave[: own * self.data.hop_length] for wave, own in zip(waves, frames, strict=True)]

    def say(self, speech: Speech) -> np.ndarray:
        """Speak one text: waveform, float32 [samples], at data.sampling_rate.

        Raises:
            ValueError: as of `read`.
        """
        return self.speak([self.read(speech)])[0]

    def _features(self, reading: Reading, generator: torch.Generator) -> list[np.ndarray]:
        """Features a phone of the three BERT models, float32 [T, width]."""
        arrays = (reading.bert, reading.token_index, reading.spoken)
        bert, token_index, spoken = (torch.from_numpy(array)[None] for array in arrays)
        return [
            f[0].T.numpy()
            for f in features_of_phones(
                bert, token_index, spoken, self.data.bert.inactive, generator
            )
        ]

    def _padded(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Arrays [T_i, ...] as one tensor [B, T, ...] on the device."""
        return torch.from_numpy(pad(arrays, arrays[0].dtype.type)).to(self.device)

    def _noise(
        self, generators: Sequence[torch.Generator], channels: int, lengths: Sequence[int]
    ) -> Tensor:
        """Normal noise [B, channels, T], each item's from its own generator; zeros in the padding."""
        drawn = [
            torch.randn(channels, n, generator=g) for g, n in zip(generators, lengths, strict=True)
        ]
        return self._padded([noise.T.numpy() for noise in drawn]).transpose(1, 2)

    def _column(self, speeches: Sequence[Speech], value: Callable[[Speech], float]) -> Tensor:
        """A setting of each speech, [B, 1, 1]."""
        return torch.tensor([value(speech) for speech in speeches], device=self.device).view(
            -1, 1, 1
        )
