"""From shard rows to one micro-batch of padded arrays, and on to the tensors that networks take."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.audio.recording import decode_flac
from data.audio.spectrogram import spectrogram
from data.config import BertConfig, DataConfig
from data.plan.epoch_plan import rounded_up
from data.stream.inputs import TextInputs
from data.text.front_end import expand_word2ph, to_sequence


@dataclass(frozen=True)
class Extent:
    """How long the utterances of a micro-batch are, known on the host: padding goes beyond it.

    Attributes:
        frames: frames of the longest utterance.
        tokens: most phones of an utterance, blanks included.
        own_frames: frames of all utterances.
    """

    frames: int
    tokens: int
    own_frames: int

    @classmethod
    def of(cls, spec_lengths: Any, x_lengths: Any) -> "Extent":
        """Return that of frames and phones, arrays or tensors on the host, [B] each."""
        return cls(int(spec_lengths.max()), int(x_lengths.max()), int(spec_lengths.sum()))


@dataclass
class TtsBatch:
    """A micro-batch of B utterances, padded: T phones with blanks, N tokens, S samples, F frames.

    T and F may be beyond the longest utterance's, up to multiples of `data.plan.pad_to`.

    Attributes:
        rows: rows of the manifest, int64 [B].
        x: phone ids, int64 [B, T].
        x_lengths: phones of each utterance, int64 [B].
        tone: tone ids, int64 [B, T].
        language: language ids, int64 [B, T].
        bert: features per token, float16 [B, N, bert_channels].
        token_index: token of each phone, int64 [B, T].
        y: waveform in [-1, 1], float32 [B, 1, S].
        y_lengths: samples of each utterance, int64 [B].
        spec_lengths: frames of each utterance, int64 [B].
        speakers: rows of the speaker table, int64 [B].
        spec: linear magnitude spectrogram, float32 [B, filter_length / 2 + 1, F]; None until it is
            computed.
        bert_config: languages that `bert_features` gives features of, and what stands in for those
            that an utterance is not in.
        extent: lengths without padding; by default, that of the tensors, which are on the host.
    """

    rows: Tensor
    x: Tensor
    x_lengths: Tensor
    tone: Tensor
    language: Tensor
    bert: Tensor
    token_index: Tensor
    y: Tensor
    y_lengths: Tensor
    spec_lengths: Tensor
    speakers: Tensor
    spec: Tensor | None = None
    bert_config: BertConfig = field(default_factory=BertConfig)
    extent: Extent = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Read the extent while the tensors are on the host."""
        if self.extent is None:
            self.extent = Extent.of(self.spec_lengths, self.x_lengths)

    def to(self, device: torch.device) -> "TtsBatch":
        """Return the batch on a device, but for `rows`, which stay on the host.

        From pinned memory the copies are asynchronous.
        """
        moved: dict[str, Any] = {
            name: tensor.to(device, non_blocking=True)
            for name in ARRAYS
            if name != "rows" and (tensor := getattr(self, name)) is not None
        }
        return replace(self, **moved)

    def on_device(self) -> Iterator[Tensor]:
        """Yield the tensors that `to` moves."""
        for name in ARRAYS:
            if name != "rows" and (tensor := getattr(self, name)) is not None:
                yield tensor

    @property
    def computed_frames(self) -> int:
        """Frames of all utterances with their padding, B x F, once the spectrogram is there."""
        assert self.spec is not None
        return len(self.spec) * self.spec.shape[2]

    def with_spectrogram(self, cfg: DataConfig) -> "TtsBatch":
        """Compute `spec` on the device of this batch, unless it is there."""
        if self.spec is None:
            self.spec = linear_spectrogram(self.y, self.y_lengths, cfg)
        return self

    def text_inputs(self) -> TextInputs:
        """Return what the generator reads of the texts, with the noise of `bert_features`."""
        return TextInputs(
            x=self.x,
            x_lengths=self.x_lengths,
            tone=self.tone,
            language=self.language,
            bert=self.bert_features(),
            sid=self.speakers,
            tokens=self.extent.tokens,
        )

    def bert_features(self) -> tuple[Tensor, ...]:
        """Return features per phone, one float32 [B, bert_channels, T] per language.

        Noise is drawn from torch's global generator on the batch's device. The training step seeds
        it with the run's seed and the micro-batch's number before it calls this, so the noise
        depends on nothing else.
        """
        positions = torch.arange(self.x.shape[1], device=self.x.device)
        inside = positions < self.x_lengths.unsqueeze(1)
        # one language per utterance; its blanks have language 0
        spoken = self.language.amax(1, keepdim=True)
        spoken = torch.where(inside, spoken, -1)
        return features_of_phones(self.bert, self.token_index, spoken, self.bert_config)


ARRAYS = tuple(f.name for f in fields(TtsBatch) if f.name not in ("bert_config", "extent"))
"""The fields of TtsBatch that travel as arrays."""


def features_of_phones(
    bert: Tensor,
    token_index: Tensor,
    spoken: Tensor,
    cfg: BertConfig,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, ...]:
    """Spread features per token over the phones, and over the languages of the networks.

    Args:
        bert: features per token, float16 or float32 [B, N, bert_channels].
        token_index: token of each phone, int64 [B, T].
        spoken: language id that each phone and blank is spoken in, int64 [B, T]; -1 in the padding.
        cfg: `languages`, and `inactive`: what stands at the phones of other languages.
        generator: random generator of that noise; None: torch's global one.

    Returns:
        One float32 [B, bert_channels, T] per language, zero in the padding.
    """
    index = token_index.unsqueeze(1).expand(-1, bert.shape[2], -1)
    features = bert.float().transpose(1, 2).gather(2, index)
    parts = []
    for number in range(len(cfg.languages())):
        active = (spoken == number).unsqueeze(1)
        if cfg.inactive == "noise":
            noise = torch.randn(features.shape, generator=generator, device=features.device)
            inside = (spoken >= 0).unsqueeze(1)
            parts.append(torch.where(active, features, noise) * inside)
        else:
            parts.append(features * active)
    return tuple(parts)


def linear_spectrogram(y: Tensor, y_lengths: Tensor, cfg: DataConfig) -> Tensor:
    """Return the linear magnitudes of padded waveforms, [B, 1, S] -> [B, filter_length / 2 + 1, F].

    Args:
        y: waveforms in [-1, 1], float32 [B, 1, S].
        y_lengths: samples of each, int64 [B].
        cfg: `filter_length`, `hop_length` and `win_length` of the STFT.
    """
    return spectrogram(
        y.squeeze(1), cfg.filter_length, cfg.hop_length, cfg.win_length, lengths=y_lengths
    )


def collate(
    shard_rows: Sequence[Mapping], rows: Sequence[int], speakers: Mapping[str, int], cfg: DataConfig
) -> dict:
    """Decode and pad a micro-batch.

    Args:
        shard_rows: B rows of data.shards.manifest.SHARD_COLUMNS.
        rows: their rows in the manifest.
        speakers: speaker name -> row of the speaker table.
        cfg: `add_blank`, `plan.pad_to`, `spectrogram_on` and the STFT.

    Returns:
        The fields of TtsBatch as numpy arrays, as Ray Data carries them; see `to_batch`.
    """
    sequences = [
        to_sequence(row["phones"], row["tones"], row["language"], cfg.add_blank)
        for row in shard_rows
    ]
    phones, tones, languages = zip(*sequences, strict=True)
    token_index = [expand_word2ph(row["word2ph"], cfg.add_blank) for row in shard_rows]
    berts = [
        np.frombuffer(row["bert"], np.float16).reshape(-1, row["bert_width"]) for row in shard_rows
    ]
    waves = [decode_flac(row["audio"]) for row in shard_rows]
    x_lengths = np.asarray([len(ids) for ids in phones], np.int64)
    spec_lengths = np.asarray([len(wave) // cfg.hop_length for wave in waves], np.int64)
    T = rounded_up(int(x_lengths.max()), cfg.plan.pad_to.tokens)
    F = rounded_up(int(spec_lengths.max()), cfg.plan.pad_to.frames)
    arrays = {
        "rows": np.asarray(rows, np.int64),
        "x": pad(phones, np.int64, T),
        "x_lengths": x_lengths,
        "tone": pad(tones, np.int64, T),
        "language": pad(languages, np.int64, T),
        "bert": pad(berts, np.float16),
        "token_index": pad(token_index, np.int64, T),
        "y": pad(waves, np.float32, F * cfg.hop_length)[:, None],
        "y_lengths": np.asarray([len(wave) for wave in waves], np.int64),
        "spec_lengths": spec_lengths,
        "speakers": np.asarray([speakers[row["speaker"]] for row in shard_rows], np.int64),
    }

    if cfg.spectrogram_on in ("auto", "pipeline"):
        y = torch.from_numpy(arrays["y"])
        lengths = torch.from_numpy(arrays["y_lengths"])
        arrays["spec"] = linear_spectrogram(y, lengths, cfg).numpy()
    elif cfg.spectrogram_on == "shards":
        arrays["spec"] = stored_spectrograms(shard_rows, cfg.filter_length, F)
    return arrays


def stored_spectrograms(
    shard_rows: Sequence[Mapping], filter_length: int, frames: int
) -> np.ndarray:
    """Pad the spectrograms that shard rows hold: float32 [B, filter_length / 2 + 1, frames]."""
    bins = filter_length // 2 + 1
    specs = [np.frombuffer(row["spec"], np.float32).reshape(bins, -1) for row in shard_rows]
    padded = np.zeros((len(specs), bins, frames), np.float32)
    for row, spec in zip(padded, specs, strict=True):
        row[:, : spec.shape[1]] = spec
    return padded


def to_batch(
    arrays: Mapping[str, np.ndarray], pin: bool = False, bert_config: BertConfig | None = None
) -> TtsBatch:
    """Make a TtsBatch of what `collate` returned; its tensors are not to be written to.

    Contiguous arrays are not copied.

    Args:
        arrays: arrays of `collate`.
        pin: whether to pin the tensors' memory, for asynchronous copies to a GPU.
        bert_config: see TtsBatch; None: the default.
    """
    with warnings.catch_warnings():
        # the arrays lie in Ray's object store
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(arrays[name]))
            for name in ARRAYS
            if name in arrays
        }
    if pin:
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    extent = Extent.of(arrays["spec_lengths"], arrays["x_lengths"])
    return TtsBatch(**tensors, bert_config=bert_config or BertConfig(), extent=extent)


def pad(arrays: Sequence[np.ndarray], dtype: type, at_least: int = 0) -> np.ndarray:
    """Stack arrays [n_i, ...] into one [B, n, ...], with zeros behind the shorter ones.

    Args:
        arrays: the arrays.
        dtype: type of the result.
        at_least: n, unless an array is longer.
    """
    longest = max(at_least, *map(len, arrays))
    out = np.zeros((len(arrays), longest, *np.shape(arrays[0])[1:]), dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out
