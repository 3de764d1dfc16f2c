"""Validation on fixed sets of utterances, shared by all workers, equal for any number of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from data.audio.spectrogram import mel_spectrogram, spec_to_mel
from data.config import DataConfig
from data.stream.collate import TtsBatch
from data.stream.loading import Utterance
from trainable.config import EvalConfig, TrainConfig
from trainable.distributed.collectives import all_gather_rows, world_size
from trainable.evaluation.metrics import METRICS, analyse, compare
from trainable.evaluation.scorers import Scorer
from trainable.learning.losses import kl_loss
from trainable.learning.step import mel_parameters, seed_phase
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.networks.layers.segments import slice_segments

EVALUATION = 3  # phase number of the random draws, behind those of trainable.learning.step
TEACHER_FORCED = ("mel", "kl", "dur")
PREDICTORS = {"": 0.0, "_sdp": 1.0}  # suffix of the synthesis' scores -> sdp_ratio


@dataclass
class Evaluation:
    """Scores of utterances, and on rank 0 what was synthesised.

    Attributes:
        tags: names of the scores.
        table: float64 [utterances, tags], NaN where an utterance has no such score; equal on all
            ranks.
        samples: dicts with `number`, `mels` (tag -> [bands, frames]), `audio` (tag -> [samples])
            and `alignments` (tag -> [frames, phones]), ordered by utterance.
    """

    tags: tuple[str, ...]
    table: np.ndarray
    samples: list[dict] = field(default_factory=list)

    def means(self, prefix: str = "eval/", groups: Sequence[str] = ()) -> dict[str, float]:
        """The mean of each score over the utterances that have it.

        Args:
            prefix: of the tags.
            groups: a name an utterance; where there are several, each one's means stand under
                `<tag>/<name>`.

        Returns:
            Tag -> mean; without the scores that no utterance has.
        """
        of = {"": np.ones(len(self.table), bool)}
        if len(names := sorted(set(groups))) > 1:
            of |= {f"/{name}": np.array([name == group for group in groups]) for name in names}
        found = {}
        for group, members in of.items():
            for tag, column in zip(self.tags, self.table[members].T, strict=True):
                if len(known := column[~np.isnan(column)]):
                    found[f"{prefix}{tag}{group}"] = float(known.mean())
        return found


def score_tags(syntheses: int, scorers: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of the scores: of teacher forcing, and where there are syntheses of these with either predictor."""
    names = (*METRICS, *scorers) if syntheses else ()
    return (*TEACHER_FORCED, *(name + suffix for suffix in PREDICTORS for name in names))


def validation_tags(train: TrainConfig, cfg: EvalConfig) -> list[str]:
    """Tags of the scores that a validation gives; those of single languages, which have one more part, left out."""
    tags = score_tags(min(cfg.syntheses, cfg.max_utterances), cfg.scorers)
    known = [f"eval/{tag}" for tag in tags] + [f"eval/train_{tag}" for tag in TEACHER_FORCED]
    return known + ([f"eval/ema_{tag}" for tag in tags] if train.ema_decay else [])


def is_known(metric: str, train: TrainConfig, cfg: EvalConfig) -> bool:
    """Whether a validation gives this score, of all utterances or of a language."""
    return "/".join(metric.split("/")[:2]) in validation_tags(train, cfg)


def check_metric(train: TrainConfig, cfg: EvalConfig) -> None:
    """Refuse a metric that no validation gives.

    Raises:
        ValueError: names the key and what there is.
    """
    known, metric = validation_tags(train, cfg), train.checkpoint.metric
    if not is_known(metric, train, cfg):
        raise ValueError(
            f"train.checkpoint.metric is {metric}, which no validation gives; choose of {', '.join(known)}, "
            "or raise eval.syntheses"
        )


@torch.no_grad()
def evaluate(
    g: SynthesizerTrn,
    utterances: Iterable[Utterance],
    total: int,
    cfg: EvalConfig,
    data: DataConfig,
    seed: int,
    scorers: Mapping[str, Scorer] | None = None,
) -> Evaluation:
    """Score the generator; a collective call.

    The first `cfg.syntheses` utterances are synthesised freely with either duration predictor and
    compared with the recordings; all are decoded with teacher forcing.

    Args:
        g: the generator; in training mode again on return.
        utterances: this worker's share.
        total: how many all workers have together; their numbers are 0 .. total - 1.
        cfg: what is scored.
        data: STFT and mel parameters.
        seed: of the run; with an utterance's number it gives all random draws.
        scorers: name -> what else scores a synthesis.
    """
    device, scorers = next(g.parameters()).device, scorers or {}
    tags = score_tags(min(cfg.syntheses, total), scorers)
    own, samples = {}, []
    g.eval()
    for utterance in utterances:
        batch, number = utterance.batch.to(device).with_spectrogram(data), utterance.number
        seed_phase(seed, number, EVALUATION)
        scores = dict(zip(TEACHER_FORCED, teacher_forced(g, batch, data), strict=True))
        if number < cfg.syntheses:
            sample, synthesis_scores = synthesize(g, batch, number, data, cfg.max_frames)
            scores |= synthesis_scores
            scores |= _scored(scorers, utterance, sample, data.sampling_rate)
            if number < cfg.samples:
                samples.append(sample)
        own[number] = torch.tensor(
            [scores.get(tag, float("nan")) for tag in tags], dtype=torch.float64
        )
    g.train()
    table = all_gather_rows(own, total, len(tags), device).cpu().numpy()
    return Evaluation(tags, table, _on_rank_zero(samples))


def teacher_forced(g: SynthesizerTrn, batch: TtsBatch, data: DataConfig) -> list[float]:
    """Mel L1 of a decoded segment, KL and duration loss of one utterance, unweighted: TEACHER_FORCED."""
    assert batch.spec is not None
    out = g(
        batch.x,
        batch.x_lengths,
        batch.spec,
        batch.spec_lengths,
        batch.speakers,
        batch.tone,
        batch.language,
        *batch.bert_features(),
    )
    real = spec_to_mel(
        slice_segments(batch.spec, out.ids_slice, g.segment_size), **mel_parameters(data)
    )
    fake = mel_spectrogram(out.o.float().squeeze(1), **mel_parameters(data, waveform=True))
    kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.y_mask)
    return (
        torch.stack([torch.nn.functional.l1_loss(real, fake), kl, out.l_length.float().sum()])
        .double()
        .tolist()
    )


def synthesize(
    g: SynthesizerTrn, batch: TtsBatch, number: int, data: DataConfig, max_frames: int
) -> tuple[dict, dict[str, float]]:
    """Speak an utterance freely with either duration predictor, beside the recording.

    Returns:
        A sample of `Evaluation.samples`, and its scores.
    """
    assert batch.spec is not None

    def analysed(mel: Tensor, wave: Tensor):
        return analyse(mel, wave, data.sampling_rate, data.filter_length, data.hop_length)

    mel, wave = (
        spec_to_mel(batch.spec, **mel_parameters(data))[0],
        batch.y[0, 0, : batch.y_lengths[0]],
    )
    real = analysed(mel, wave)
    mels, audio, alignments = (
        {f"gt/mel_{number}": mel},
        {f"gt/audio_{number}": wave},
        dict[str, Tensor](),
    )
    scores: dict[str, float] = {}
    # the plots are of the deterministic predictor, as always
    for suffix, sdp_ratio in reversed(PREDICTORS.items()):
        prior = g.plan(
            batch.x,
            batch.x_lengths,
            batch.speakers,
            batch.tone,
            batch.language,
            *batch.bert_features(),
            y=batch.spec,
            sdp_ratio=sdp_ratio,
        )
        out = g.render(prior.limited(max_frames))
        wave = out.o[0, 0].float()
        mel = mel_spectrogram(wave[None], **mel_parameters(data, waveform=True))[0]
        audio[f"gen/audio_{number}_{sdp_ratio == 1.0}"] = wave
        mels[f"gen/mel_{number}"] = mel
        alignments[f"gen/attn_{number}"] = out.attn[0, 0]
        scores |= {
            name + suffix: value for name, value in compare(real, analysed(mel, wave)).items()
        }
    parts = {"mels": mels, "audio": audio, "alignments": alignments}
    sample: dict = {
        part: {tag: t.float().cpu().numpy() for tag, t in of.items()} for part, of in parts.items()
    }
    return sample | {"number": number}, scores


def _scored(
    scorers: Mapping[str, Scorer], utterance: Utterance, sample: dict, rate: int
) -> dict[str, float]:
    """What the scorers say of both syntheses."""
    audio, number = sample["audio"], sample["number"]
    return {
        name + suffix: float(
            scorer(
                audio[f"gen/audio_{number}_{ratio == 1.0}"],
                rate,
                utterance,
                audio[f"gt/audio_{number}"],
            )
        )
        for suffix, ratio in PREDICTORS.items()
        for name, scorer in scorers.items()
    }


def _on_rank_zero(own: list[dict]) -> list[dict]:
    """All workers' samples in the order of their numbers, on rank 0."""
    if world_size() == 1:
        return own
    first = dist.get_rank() == 0
    gathered: list = [None] * world_size() if first else []
    dist.gather_object(own, gathered if first else None)
    return sorted(
        (sample for part in gathered for sample in part), key=lambda sample: sample["number"]
    )
