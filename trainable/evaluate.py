"""Validation on a fixed set of utterances, shared by all workers, equal for any number of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist

from data.collate import TtsBatch
from data.config import DataConfig
from data.spectrogram import mel_spectrogram, spec_to_mel
from trainable.config import EvalConfig
from trainable.losses import kl_loss
from trainable.networks.segments import slice_segments
from trainable.networks.synthesizer import SynthesizerTrn
from trainable.reduction import gather_rows, unwrapped, world_size
from trainable.state import TrainState
from trainable.step import mel_parameters, seed_phase

EVALUATION = 3  # phase number of the random draws, behind those of trainable.step
METRICS = ("eval/mel", "eval/kl", "eval/dur")


@dataclass
class Evaluation:
    """Scores, and on rank 0 what was synthesised.

    Attributes:
        scalars: METRICS, means over the utterances; empty where there are none.
        samples: dicts with `mels` (tag -> [bands, frames]) and `audio` (tag -> [samples]), ordered by utterance.
    """

    scalars: dict[str, float]
    samples: list[dict] = field(default_factory=list)


@torch.no_grad()
def evaluate(
    state: TrainState,
    batches: Iterable[tuple[int, TtsBatch]],
    utterances: int,
    cfg: EvalConfig,
    data: DataConfig,
    rank: int,
) -> Evaluation:
    """Score the generator; a collective call.

    Args:
        state: what is trained.
        batches: this worker's share: (number, a batch of one utterance).
        utterances: how many all workers have together; their numbers are 0 .. utterances - 1.
        cfg: how many of them are synthesised freely.
        data: STFT and mel parameters.
        rank: of this worker.

    Returns:
        The teacher-forced mel L1, KL and duration loss, unweighted, and free syntheses with sdp_ratio 0 and 1.
    """
    g: SynthesizerTrn = unwrapped(state.nets["g"])  # type: ignore[assignment]
    device = next(g.parameters()).device
    g.eval()
    own, samples = {}, []
    for number, batch in batches:
        batch = batch.to(device).with_spectrogram(data)
        seed_phase(state.train.seed, number, EVALUATION)
        own[number] = teacher_forced(g, batch, data, state.train.segment_size)
        if number < cfg.samples:
            samples.append((number, synthesize_sample(g, batch, number, data, cfg.max_frames)))
    g.train()
    scores = gather_rows(own, utterances, len(METRICS), device)
    scalars = dict(zip(METRICS, scores.mean(0).tolist(), strict=True)) if utterances else {}
    return Evaluation(scalars, _on_rank_zero(samples, rank))


def teacher_forced(g: SynthesizerTrn, batch: TtsBatch, data: DataConfig, segment_size: int) -> torch.Tensor:
    """Mel L1 of a decoded segment, KL and duration loss of one utterance: float64 [3]."""
    assert batch.spec is not None
    out = g(
        batch.x, batch.x_lengths, batch.spec, batch.spec_lengths, batch.speakers, batch.tone, batch.language,
        *batch.bert_features(),
    )  # fmt: skip
    segment = slice_segments(batch.spec, out.ids_slice, segment_size // data.hop_length)
    real = spec_to_mel(segment, **mel_parameters(data))
    fake = mel_spectrogram(out.o.float().squeeze(1), **mel_parameters(data, waveform=True))
    kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.y_mask)
    return torch.stack([torch.nn.functional.l1_loss(real, fake), kl, out.l_length.float().sum()]).double()


def synthesize_sample(g: SynthesizerTrn, batch: TtsBatch, number: int, data: DataConfig, max_frames: int) -> dict:
    """Free synthesis of an utterance with each duration predictor, beside the recording."""
    assert batch.spec is not None
    mels = {f"gt/mel_{number}": spec_to_mel(batch.spec, **mel_parameters(data))[0]}
    audio = {f"gt/audio_{number}": batch.y[0, 0, : batch.y_lengths[0]]}
    for use_sdp in (True, False):
        out = g.infer(
            batch.x, batch.x_lengths, batch.speakers, batch.tone, batch.language, *batch.bert_features(),
            y=batch.spec, max_len=max_frames, sdp_ratio=float(use_sdp),
        )  # fmt: skip
        wave = out.o[0, 0].float()
        audio[f"gen/audio_{number}_{use_sdp}"] = wave
        mels[f"gen/mel_{number}"] = mel_spectrogram(wave[None], **mel_parameters(data, waveform=True))[0]
    to_numpy = {"mels": mels, "audio": audio}
    return {part: {tag: t.cpu().numpy().astype(np.float32) for tag, t in of.items()} for part, of in to_numpy.items()}


def _on_rank_zero(own: list[tuple[int, dict]], rank: int) -> list[dict]:
    """All workers' samples in the order of their numbers, on rank 0."""
    if world_size() == 1:
        return [sample for _, sample in own]
    gathered: list = [None] * world_size() if rank == 0 else []
    dist.gather_object(own, gathered if rank == 0 else None)
    return [sample for _, sample in sorted((s for part in gathered for s in part), key=lambda s: s[0])]
