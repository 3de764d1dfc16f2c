"""A voice that speaks: a checkpoint's generator with its front ends and BERT models."""

import logging
from collections.abc import Callable, Mapping, Sequence
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
from data.stream.inputs import TextInputs
from data.text.marked import marked, parse, sentences
from job.options.voice import MAX_SECONDS
from job.settings.cli import read_saved_config
from job.settings.keys import did_you_mean
from trainable.networks.generator.build import build_generator
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.run.checkpoint import load_weights
from trainable.run.format import CONFIG, STATE, CheckpointInfo, parse_info, read_info

log = logging.getLogger("bert_vits2_ray")
LETTERS_PER_S = 40  # nobody speaks faster, in any language
NAMES_SHOWN = 10


@dataclass(frozen=True)
class SpeechRequest:
    """What to say, and how.

    Attributes:
        text: text, whose language the marks `[ZH]`, `[JP]` and `[EN]` may change.
        speaker: a name of the training data; None for a voice without a speaker table.
        language: code of the language of the text before the first mark.
        sdp_ratio: share of the stochastic duration predictor, 0 to 1.
        noise_scale: variation of the sound, 0 to 10.
        noise_scale_w: variation of the rhythm, 0 to 10.
        length_scale: above 1 slower, below 1 faster; 0.01 to 100.
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
            if not 0 <= getattr(self, name) <= 10:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number from 0 to 10")
        if not 0.01 <= self.length_scale <= 100:
            raise ValueError(f"length_scale is {self.length_scale}: give a factor from 0.01 to 100")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}: give a number of 64 bits")

    def by_sentence(self) -> list["SpeechRequest"]:
        """Return one request per sentence, otherwise equal to this one.

        Raises:
            ValueError: a language is missing or unknown, or there is no text.
        """
        parsed = parse(self.text, self.language)
        return [replace(self, text=marked(parts)) for parts in sentences(parsed)]


def speakers_of(folder: Path) -> dict[str, int] | None:
    """Return name -> row of a checkpoint's speaker table; None if it has none.

    Raises:
        CheckpointError: its state.json is damaged.
    """
    info = parse_info((folder / STATE).read_bytes(), f"{folder / STATE}")
    return info.speakers if read_saved_config(folder / CONFIG).model.n_speakers else None


def speaker_row(speaker: str | None, speakers: Mapping[str, int] | None) -> int:
    """Return a speaker's row.

    Args:
        speaker: name of the speaker.
        speakers: the speaker table; None without one, where every speaker has row 0.

    Raises:
        ValueError: an unknown speaker; names those that there are.
    """
    if speakers is None:
        return 0
    if speaker is not None and speaker in speakers:
        return speakers[speaker]
    names = sorted(speakers)
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    wanted = "no speaker is given" if speaker is None else f"no speaker {speaker!r}"
    near = did_you_mean(speaker or "", names)
    raise ValueError(f"{wanted}{near} (this voice has: {', '.join(names[:NAMES_SHOWN])}{more})")


@dataclass(frozen=True)
class PreparedSpeech:
    """A request whose text has been read: ready for the network.

    Attributes:
        request: what to say, and how.
        reading: phones, tones and BERT features of its text.
        speaker: row of the speaker table.
    """

    request: SpeechRequest
    reading: Reading
    speaker: int


class Voice:
    """A generator that is ready to speak.

    Args:
        g: generator in evaluation mode, on the device that is to compute.
        data: the configuration that it was trained with.
        info: what its checkpoint says of itself.
        recording: [samples] of the speaker at data.sampling_rate, for a voice without a speaker
            table.
        max_seconds: longest speech in one piece.

    Raises:
        ValueError: a voice without a speaker table and no recording.
    """

    def __init__(
        self,
        g: SynthesizerTrn,
        data: DataConfig,
        info: CheckpointInfo,
        recording: np.ndarray | None = None,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        if g.n_speakers == 0 and recording is None:
            raise ValueError(
                "this voice has no speaker table: give a recording of the speaker (--reference)"
            )
        self.g = g
        self.data = data
        self.info = info
        self.max_seconds = max_seconds
        self.device = next(g.parameters()).device
        self.reader = TextReader(data, str(self.device), full_precision=True)

        self.reference: Tensor | None = None  # [1, spec, T]
        if recording is not None:
            wave = torch.from_numpy(recording)[None].to(self.device)
            self.reference = spectrogram(wave, data.filter_length, data.hop_length, data.win_length)

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "cpu",
        reference: str | None = None,
        weights: str = "g",
        max_seconds: float = MAX_SECONDS,
    ) -> "Voice":
        """Load the generator of a checkpoint.

        Args:
            folder: folder of the checkpoint.
            device: device that computes.
            reference: file of a recording of the speaker, for a voice without a speaker table.
            weights: which of GENERATORS speaks.
            max_seconds: longest speech in one piece.

        Raises:
            ValueError: a voice without a speaker table and no recording, or a recording that cannot
                be decoded.
            CheckpointError: the checkpoint is damaged, or does not hold these weights.
        """
        info = read_info(folder)
        cfg = read_saved_config(folder / CONFIG)
        recording = None if reference is None else decode_audio(read_audio(reference), cfg.data)
        g = build_generator(cfg.model, cfg.train.segment_size, cfg.data)
        load_weights(folder, weights, g)
        return cls(g.eval().to(device), cfg.data, info, recording, max_seconds)

    def speaker_row(self, speaker: str | None) -> int:
        """Return the row of the speaker table; 0 if there is no table.

        Raises:
            ValueError: an unknown speaker.
        """
        return speaker_row(speaker, self.info.speakers if self.g.n_speakers else None)

    def read(self, request: SpeechRequest) -> PreparedSpeech:
        """Read the text of a request.

        Raises:
            ValueError: an unknown speaker or language, or a text that the front end cannot read, or
                that is too long to be spoken in one piece.
        """
        row = self.speaker_row(request.speaker)
        parts = parse(request.text, request.language)
        # before anything is computed, since the models' memory grows with the square of the length
        letters = sum(map(str.isalnum, request.text))
        self._check_length(letters / LETTERS_PER_S * min(request.length_scale, 1), request)
        reading = self.reader(parts)
        if reading.unread:
            log.warning("no rule reads %s of %r: not spoken", reading.unread, request.text)
        self._check_length(len(reading.x) / self._frames_per_s, request)
        return PreparedSpeech(request, reading, row)

    @property
    def _frames_per_s(self) -> float:
        return self.data.sampling_rate / self.data.hop_length

    def _check_length(self, seconds: float, request: SpeechRequest) -> None:
        """Refuse a speech that is too long for one piece.

        Raises:
            ValueError: names the options to change.
        """
        if not seconds <= self.max_seconds:
            slow = f", a length_scale below {request.length_scale:g}"
            raise ValueError(
                f"the text would take {seconds:.0f} s or more, and {self.max_seconds:g} s are "
                "spoken in one piece: give less text, --stream (sentence by sentence)"
                f"{slow if request.length_scale > 1 else ''} or a larger --max-seconds"
            )

    @torch.no_grad()
    def speak(self, batch: Sequence[PreparedSpeech]) -> list[np.ndarray]:
        """Speak several texts in one batch.

        Raises:
            ValueError: one of them would be too long.

        Each draws its noise from its own seed, on the CPU, so that its audio depends, up to
        rounding, neither on its neighbours nor on the device.

        Returns:
            One waveform per text, float32 [samples], at data.sampling_rate.
        """
        readings = [each.reading for each in batch]
        requests = [each.request for each in batch]
        # one generator per text: its noise must not depend on its neighbours
        generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        features = [self._features(*pair) for pair in zip(readings, generators, strict=True)]
        lengths = [len(reading.x) for reading in readings]
        text = TextInputs(
            x=self._padded([reading.x for reading in readings]),
            x_lengths=torch.tensor(lengths, device=self.device),
            tone=self._padded([reading.tone for reading in readings]),
            language=self._padded([reading.language for reading in readings]),
            bert=tuple(self._padded(own).transpose(1, 2) for own in zip(*features, strict=True)),
            sid=torch.tensor([each.speaker for each in batch], device=self.device),
        )

        prior = self.g.plan(
            text,
            noise=self._noise(generators, 2, lengths),
            noise_scale_w=self._column(requests, lambda request: request.noise_scale_w),
            length_scale=self._column(requests, lambda request: request.length_scale),
            sdp_ratio=self._column(requests, lambda request: request.sdp_ratio),
            y=self.reference,
        )

        for length, request in zip(prior.w.double().sum([1, 2]).tolist(), requests, strict=True):
            self._check_length(length / self._frames_per_s, request)
        frames = prior.frames().tolist()
        noise = self._noise(generators, prior.m_p.shape[1], frames)
        noise_scale = self._column(requests, lambda request: request.noise_scale)
        # padding must not be heard, so texts of a batch are decoded apart
        rendered = self.g.render(prior, noise, noise_scale, apart=len(batch) > 1)
        waves = rendered.o[:, 0].float().cpu().numpy()
        # what follows a text's own frames is padding
        return [wave[: own * self.data.hop_length] for wave, own in zip(waves, frames, strict=True)]

    def say(self, request: SpeechRequest) -> np.ndarray:
        """Speak one text: waveform, float32 [samples], at data.sampling_rate.

        Raises:
            ValueError: see `read`.
        """
        return self.speak([self.read(request)])[0]

    def _features(self, reading: Reading, generator: torch.Generator) -> list[np.ndarray]:
        """Return features per phone of each language's BERT model, float32 [T, width]."""
        arrays = (reading.bert, reading.token_index, reading.spoken)
        bert, token_index, spoken = (torch.from_numpy(array)[None] for array in arrays)
        features = features_of_phones(bert, token_index, spoken, self.data.bert, generator)
        return [each[0].T.numpy() for each in features]

    def _padded(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Return arrays [T_i, ...] as one tensor [B, T, ...] on the device."""
        return torch.from_numpy(pad(arrays, arrays[0].dtype.type)).to(self.device)

    def _noise(
        self, generators: Sequence[torch.Generator], channels: int, lengths: Sequence[int]
    ) -> Tensor:
        """Return normal noise [B, channels, T], zero in the padding.

        Args:
            generators: one per item, from which its noise is drawn.
            channels: number of channels.
            lengths: length of each item.
        """
        # on the CPU, whose numbers are the same on every machine
        drawn = [
            torch.randn(channels, n, generator=g) for g, n in zip(generators, lengths, strict=True)
        ]
        return self._padded([noise.T.numpy() for noise in drawn]).transpose(1, 2)

    def _column(
        self, requests: Sequence[SpeechRequest], value: Callable[[SpeechRequest], float]
    ) -> Tensor:
        """Return one setting of each request, [B, 1, 1]."""
        values = [value(request) for request in requests]
        return torch.tensor(values, device=self.device).view(-1, 1, 1)
