"""Validation on fixed sets of utterances, shared by all workers, equal for any number of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data.audio.spectrogram import mel_spectrogram, spec_to_mel
from data.config import DataConfig
from data.stream.collate import TtsBatch
from data.stream.evaluation import EvaluationUtterance
from trainable.config import EvalConfig, TrainConfig
from trainable.distributed.collectives import all_gather_rows, collective, gather_on_rank_zero
from trainable.evaluation.metrics import METRICS, Analysis, analyse, compare
from trainable.evaluation.scorers import Scorer
from trainable.learning.losses import kl_loss
from trainable.learning.step import mel_parameters, seed_phase
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.networks.layers.segments import slice_segments

EVALUATION = 3  # phase number of the random draws, behind those of a training step
TEACHER_FORCED = ("mel", "kl", "dur")
PREDICTORS = {"": 0.0, "_sdp": 1.0}  # suffix of the synthesis' scores -> sdp_ratio


@dataclass
class Evaluation:
    """Scores of utterances, and on rank 0 what was synthesised.

    Attributes:
        tags: names of the scores.
        table: float64 [utterances, tags], NaN where an utterance has no such score; equal on all
            ranks.
        samples: dicts with `number`, `text`, `mels` (tag -> [bands, frames]), `audio` (tag ->
            [samples]) and `alignments` (tag -> [frames, phones]), ordered by utterance.
    """

    tags: tuple[str, ...]
    table: np.ndarray
    samples: list[dict] = field(default_factory=list)

    def means(self, prefix: str = "eval/", groups: Sequence[str] = ()) -> dict[str, float]:
        """Return the mean of each score over the utterances that have it.

        Args:
            prefix: begins the tags.
            groups: a name per utterance; if there are several names, the means of each one stand
                under `<tag>/<name>`.

        Returns:
            Tag -> mean; without the scores that no utterance has.
        """
        members = {"": np.ones(len(self.table), bool)}
        names = sorted(set(groups))
        if len(names) > 1:
            members |= {f"/{name}": np.array([own == name for own in groups]) for name in names}

        found = {}
        for suffix, rows in members.items():
            for tag, column in zip(self.tags, self.table[rows].T, strict=True):
                known = column[~np.isnan(column)]
                if len(known):
                    found[f"{prefix}{tag}{suffix}"] = float(known.mean())
        return found


def score_tags(syntheses: int, scorers: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names of the scores.

    Those of teacher forcing, and if there are syntheses those of these, per duration predictor.

    Args:
        syntheses: number of utterances that are synthesised.
        scorers: names of what else scores a synthesis.
    """
    names = (*METRICS, *scorers) if syntheses else ()
    return (*TEACHER_FORCED, *(name + suffix for suffix in PREDICTORS for name in names))


def validation_tags(train: TrainConfig, cfg: EvalConfig) -> list[str]:
    """Return the tags of the scores that a validation gives, over all utterances."""
    tags = score_tags(min(cfg.syntheses, cfg.max_utterances), cfg.scorers)
    known = [f"eval/{tag}" for tag in tags]
    known += [f"eval/train_{tag}" for tag in TEACHER_FORCED]
    if train.ema_decay:
        known += [f"eval/ema_{tag}" for tag in tags]
    return known


def is_known(metric: str, train: TrainConfig, cfg: EvalConfig) -> bool:
    """Tell whether a validation gives this score, over all utterances or over a language's."""
    over_all = "/".join(metric.split("/")[:2])  # a language's tag has one more part
    return over_all in validation_tags(train, cfg)


def check_metric(train: TrainConfig, cfg: EvalConfig) -> None:
    """Refuse a metric that no validation gives.

    Raises:
        ValueError: names the key and what there is.
    """
    metric = train.checkpoint.metric
    if not is_known(metric, train, cfg):
        known = ", ".join(validation_tags(train, cfg))
        raise ValueError(
            f"train.checkpoint.metric is {metric}, which no validation gives; "
            f"choose one of {known}, or raise eval.syntheses"
        )


@collective
@torch.no_grad()
def evaluate(
    g: SynthesizerTrn,
    utterances: Iterable[EvaluationUtterance],
    total: int,
    cfg: EvalConfig,
    data: DataConfig,
    seed: int,
    scorers: Mapping[str, Scorer] | None = None,
) -> Evaluation:
    """Score the generator.

    The first `cfg.syntheses` utterances are synthesised freely with either duration predictor and
    compared with the recordings; all are decoded with teacher forcing.

    Args:
        g: the generator; in training mode again on return.
        utterances: this worker's share.
        total: how many all workers have together; their numbers are 0 .. total - 1.
        cfg: what is scored.
        data: STFT and mel parameters.
        seed: seed of the run; with an utterance's number it gives all random draws.
        scorers: name -> what else scores a synthesis.
    """
    device = next(g.parameters()).device
    scorers = scorers or {}
    tags = score_tags(min(cfg.syntheses, total), scorers)
    own = {}
    samples = []
    g.eval()
    for utterance in utterances:
        batch = utterance.batch.to(device).with_spectrogram(data)
        number = utterance.number
        # by the utterance, never by the worker: any number of workers finds the same scores
        seed_phase(seed, number, EVALUATION)
        scores = dict(zip(TEACHER_FORCED, teacher_forced(g, batch, data), strict=True))
        if number < cfg.syntheses:
            sample, synthesis_scores = synthesize(g, batch, number, data, cfg.max_frames)
            scores |= synthesis_scores
            scores |= _scored(scorers, utterance, sample, data.sampling_rate)
            if number < cfg.samples:
                samples.append(sample | {"text": utterance.text})
        # on an utterance that is not synthesised, or has no voiced frame, some scores are missing
        values = [scores.get(tag, float("nan")) for tag in tags]
        own[number] = torch.tensor(values, dtype=torch.float64)
    g.train()

    table = all_gather_rows(own, total, len(tags), device).cpu().numpy()
    everyone = [sample for part in gather_on_rank_zero(samples) for sample in part]
    return Evaluation(tags, table, sorted(everyone, key=lambda sample: sample["number"]))


def teacher_forced(g: SynthesizerTrn, batch: TtsBatch, data: DataConfig) -> list[float]:
    """Return TEACHER_FORCED of one utterance, unweighted: mel L1 of a segment, KL, duration."""
    assert batch.spec is not None
    out = g(batch.text_inputs(), batch.spec, batch.spec_lengths)
    segment = slice_segments(batch.spec, out.ids_slice, g.segment_size)
    real = spec_to_mel(segment, **mel_parameters(data))
    fake = mel_spectrogram(out.o.float().squeeze(1), **mel_parameters(data, waveform=True))
    mel = torch.nn.functional.l1_loss(real, fake)
    kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.y_mask)
    duration = out.l_length.float().sum()
    return torch.stack([mel, kl, duration]).double().tolist()


def synthesize(
    g: SynthesizerTrn, batch: TtsBatch, number: int, data: DataConfig, max_frames: int
) -> tuple[dict, dict[str, float]]:
    """Speak an utterance freely with either duration predictor, beside the recording.

    Returns:
        A sample of `Evaluation.samples`, and its scores.
    """
    assert batch.spec is not None

    def analysed(mel: Tensor, wave: Tensor) -> Analysis:
        return analyse(mel, wave, data.sampling_rate, data.filter_length, data.hop_length)

    mel = spec_to_mel(batch.spec, **mel_parameters(data))[0]
    wave = batch.y[0, 0, : batch.y_lengths[0]]
    real = analysed(mel, wave)
    mels = {f"gt/mel_{number}": mel}
    audio = {f"gt/audio_{number}": wave}
    alignments: dict[str, Tensor] = {}
    scores: dict[str, float] = {}
    # the plots are of the deterministic predictor, as always
    for suffix, sdp_ratio in reversed(PREDICTORS.items()):
        prior = g.plan(batch.text_inputs(), y=batch.spec, sdp_ratio=sdp_ratio)
        out = g.render(prior.limited(max_frames))
        wave = out.o[0, 0].float()
        mel = mel_spectrogram(wave[None], **mel_parameters(data, waveform=True))[0]
        audio[f"gen/audio_{number}_{sdp_ratio == 1.0}"] = wave
        mels[f"gen/mel_{number}"] = mel
        alignments[f"gen/attn_{number}"] = out.attn[0, 0]
        compared = compare(real, analysed(mel, wave))
        scores |= {name + suffix: value for name, value in compared.items()}

    sample = {
        "number": number,
        "mels": _on_host(mels),
        "audio": _on_host(audio),
        "alignments": _on_host(alignments),
    }
    return sample, scores


def _on_host(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {tag: t.float().cpu().numpy() for tag, t in tensors.items()}


def _scored(
    scorers: Mapping[str, Scorer], utterance: EvaluationUtterance, sample: dict, rate: int
) -> dict[str, float]:
    """Return what the scorers say of both syntheses of a sample."""
    audio = sample["audio"]
    number = sample["number"]
    recording = audio[f"gt/audio_{number}"]
    found = {}
    for suffix, sdp_ratio in PREDICTORS.items():
        synthesis = audio[f"gen/audio_{number}_{sdp_ratio == 1.0}"]
        for name, scorer in scorers.items():
            found[name + suffix] = float(scorer(synthesis, rate, utterance, recording))
    return found
