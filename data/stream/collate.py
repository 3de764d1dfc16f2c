"""From shard rows to one micro-batch of padded arrays, and from these to the tensors that the networks take."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.audio.recording import decode_flac
from data.audio.spectrogram import spectrogram
from data.config import LANGUAGES, DataConfig
from data.text.front_end import expand_word2ph, to_sequence


@dataclass
class TtsBatch:
    """A micro-batch of B utterances, padded: T phones with blanks, N tokens, S samples, F frames.

    Attributes:
        rows: rows of the manifest, int64 [B].
        x: phone ids, int64 [B, T].
        x_lengths: int64 [B].
        tone: tone ids, int64 [B, T].
        language: language ids, int64 [B, T].
        bert: features a token, float16 [B, N, bert_channels].
        token_index: token of each phone, int64 [B, T].
        y: waveform in [-1, 1], float32 [B, 1, S].
        y_lengths: samples, int64 [B].
        spec_lengths: frames, int64 [B].
        speakers: rows of the speaker table, int64 [B].
        spec: linear magnitude spectrogram, float32 [B, filter_length / 2 + 1, F]; None until it is
            computed.
        inactive: what `bert_features` gives for the languages that an utterance is not in: `zeros`
            or `noise`.
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
    inactive: str = "zeros"

    def to(self, device: torch.device) -> "TtsBatch":
        """The batch on a device, but for `rows`; from pinned memory the copies are asynchronous."""
        moved: dict[str, Any] = {
            f.name: t.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(t := getattr(self, f.name), Tensor) and f.name != "rows"
        }
        return replace(self, **moved)

    def with_spectrogram(self, cfg: DataConfig) -> "TtsBatch":
        """Compute `spec` where this batch lies, unless it is there."""
        if self.spec is None:
            self.spec = linear_spectrogram(self.y, self.y_lengths, cfg)
        return self

    def bert_features(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features a phone of the ZH, JP and EN model, float32 [B, bert_channels, T] each.

        Noise is drawn from torch's global generator on the batch's device. The training step seeds
        it with the run's seed and the micro-batch's number before it calls this, so the noise
        depends on nothing else.
        """
        mask = torch.arange(self.x.shape[1], device=self.x.device) < self.x_lengths.unsqueeze(1)
        spoken = self.language.amax(1, keepdim=True)  # of each utterance: blanks have language 0
        return features_of_phones(
            self.bert, self.token_index, torch.where(mask, spoken, -1), self.inactive
        )


def features_of_phones(
    bert: Tensor,
    token_index: Tensor,
    spoken: Tensor,
    inactive: str,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Features a phone, out of features a token.

    Args:
        bert: features a token, float16 [B, N, bert_channels].
        token_index: token of each phone, int64 [B, T].
        spoken: language id that each phone and blank is spoken in, int64 [B, T]; -1 in the padding.
        inactive: what stands at the phones of other languages: `zeros` or `noise`.
        generator: that noise is drawn from; None: torch's global one.

    Returns:
        For the ZH, JP and EN model each float32 [B, bert_channels, T], zero in the padding.
    """
    index = token_index.unsqueeze(1).expand(-1, bert.shape[2], -1)
    features = bert.float().transpose(1, 2).gather(2, index)
    parts = []
    for language in range(len(LANGUAGES)):
        active = (spoken == language).unsqueeze(1)
        if inactive == "noise":
            noise = torch.randn(features.shape, generator=generator, device=features.device)
            parts.append(torch.where(active, features, noise) * (spoken >= 0).unsqueeze(1))
        else:
            parts.append(features * active)
    zh, jp, en = parts
    return zh, jp, en


def linear_spectrogram(y: Tensor, y_lengths: Tensor, cfg: DataConfig) -> Tensor:
    """Linear magnitude spectrogram [B, filter_length / 2 + 1, F] of padded waveforms [B, 1, S]."""
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
        cfg: `add_blank`, `spectrogram_on` and the STFT.

    Returns:
        The fields of TtsBatch as numpy arrays, as Ray Data carries them; see `to_batch`.
    """
    sequences = [
        to_sequence(r["phones"], r["tones"], r["language"], cfg.add_blank) for r in shard_rows
    ]
    waves = [decode_flac(r["audio"]) for r in shard_rows]
    berts = [np.frombuffer(r["bert"], np.float16).reshape(-1, r["bert_width"]) for r in shard_rows]
    arrays = {
        "rows": np.asarray(rows, np.int64),
        "x": pad([s[0] for s in sequences], np.int64),
        "x_lengths": np.asarray([len(s[0]) for s in sequences], np.int64),
        "tone": pad([s[1] for s in sequences], np.int64),
        "language": pad([s[2] for s in sequences], np.int64),
        "bert": pad(berts, np.float16),
        "token_index": pad(
            [expand_word2ph(r["word2ph"], cfg.add_blank) for r in shard_rows], np.int64
        ),
        "y": pad(waves, np.float32)[:, None],
        "y_lengths": np.asarray([len(w) for w in waves], np.int64),
        "spec_lengths": np.asarray([len(w) // cfg.hop_length for w in waves], np.int64),
        "speakers": np.asarray([speakers[r["speaker"]] for r in shard_rows], np.int64),
    }
    if cfg.spectrogram_on == "pipeline":
        y, lengths = torch.from_numpy(arrays["y"]), torch.from_numpy(arrays["y_lengths"])
        arrays["spec"] = linear_spectrogram(y, lengths, cfg).numpy()
    elif cfg.spectrogram_on == "shards":
        specs = [
            np.frombuffer(r["spec"], np.float32).reshape(cfg.filter_length // 2 + 1, -1)
            for r in shard_rows
        ]
        arrays["spec"] = np.zeros(
            (len(specs), specs[0].shape[0], max(s.shape[1] for s in specs)), np.float32
        )
        for row, spec in zip(arrays["spec"], specs, strict=True):
            row[:, : spec.shape[1]] = spec
    return arrays


ARRAYS = tuple(f.name for f in fields(TtsBatch) if f.name != "inactive")


def to_batch(
    arrays: Mapping[str, np.ndarray], pin: bool = False, inactive: str = "zeros"
) -> TtsBatch:
    """TtsBatch of what `collate` returned, without a copy where the arrays are contiguous: not to be written to.

    Args:
        arrays: its arrays.
        pin: pin the tensors' memory, for asynchronous copies to a GPU.
        inactive: see TtsBatch.
    """
    with warnings.catch_warnings():
        # it lies in Ray's object store
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensors = {
            f.name: torch.from_numpy(np.ascontiguousarray(arrays[f.name]))
            for f in fields(TtsBatch)
            if f.name in arrays
        }
    return TtsBatch(
        **{k: t.pin_memory() if pin else t for k, t in tensors.items()}, inactive=inactive
    )


def pad(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    """Stack arrays [n_i, ...] into one [B, max n, ...], zeros behind the shorter ones."""
    out = np.zeros((len(arrays), max(map(len, arrays)), *np.shape(arrays[0])[1:]), dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out
