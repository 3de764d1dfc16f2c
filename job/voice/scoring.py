"""A checkpoint's scores on prepared data, as the validation of a training would find them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from data.config import DataConfig
from data.shards.manifest import Manifest
from data.stream.damage import BadRowsError, Damage
from data.stream.evaluation import EvaluationUtterance, evaluation_rows, evaluation_set
from data.stream.spec import StreamSpec
from job.settings.checks import fitting_manifest
from job.settings.config import Config
from trainable.config import ScorerConfig
from trainable.evaluation.evaluate import Evaluation, evaluate
from trainable.evaluation.scorers import WEIGHTS_ONLY, load_scorers
from trainable.hardware import set_up_torch
from trainable.networks.generator.build import build_generator
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.run.checkpoint import load_weights
from trainable.run.format import CheckpointInfo

NAMES_SHOWN = 10
NOBODY = -1  # row that no table has: of speakers of other splits


@dataclass(frozen=True)
class Scores:
    """What an evaluation found, and on what.

    Attributes:
        evaluation: scores of each utterance, and samples.
        rows: rows of the manifest that were scored, in the order of the scores.
        manifest: the data.
    """

    evaluation: Evaluation
    rows: np.ndarray
    manifest: Manifest


def harmless(scorers: Mapping[str, ScorerConfig]) -> dict[str, ScorerConfig]:
    """Return those of a checkpoint's scorers that run our code alone; print which are left out."""
    for name, cfg in scorers.items():
        if cfg.factory not in WEIGHTS_ONLY:
            print(
                f"eval.scorers.{name} is left out: the checkpoint asks for {cfg.factory} with "
                f"{cfg.path}, which may run any code. If you trust it: --trust-scorers"
            )
    return {name: cfg for name, cfg in scorers.items() if cfg.factory in WEIGHTS_ONLY}


def load_generator(folder: Path, cfg: Config, info: CheckpointInfo, weights: str) -> SynthesizerTrn:
    """Load the generator of a checkpoint in the state in which the training evaluates it.

    Args:
        folder: folder of the checkpoint.
        cfg: its configuration.
        info: what it says of itself.
        weights: which of GENERATORS.

    Raises:
        CheckpointError: it does not hold these weights.
    """
    g = build_generator(cfg.model, cfg.train.segment_size, cfg.data)
    load_weights(folder, weights, g)
    # noise falls with the steps; the validation after step N has that of step N - 1
    g.search.anneal(max(info.position.step - 1, 0))
    return g


def score(
    g: SynthesizerTrn,
    cfg: Config,
    split: str,
    speakers: Mapping[str, int],
    other_corpus: bool = False,
) -> Scores:
    """Score a generator on a split.

    Args:
        g: generator, on the device that computes.
        cfg: configuration of its training.
        split: one of SPLITS.
        speakers: name -> row of its speaker table.
        other_corpus: the shards are not those of the training.

    Raises:
        ValueError: the data does not fit the networks, cannot be read, has no such split, or a
            speaker that the generator does not know.
    """
    device = next(g.parameters()).device
    set_up_torch(cfg.train, cfg.scaling.threads_per_worker, device)
    manifest = fitting_manifest(cfg, other_corpus)
    check_known(manifest, split, speakers if g.n_speakers else manifest.speakers)
    spec = stream_spec(cfg.data, manifest, cfg)
    rows = evaluation_rows(spec, split, cfg.eval.max_utterances)
    if not len(rows):
        raise ValueError(
            f"{cfg.data.shards}: no utterance is of the split {split}; "
            "see data.validation_per_speaker"
        )

    # rows that cannot be read are noted, and reported together at the end
    damage = Damage()
    evaluation = evaluate(
        g,
        with_rows_of(speakers, manifest, evaluation_set(spec, rows, 0, 1, damage)),
        len(rows),
        cfg.eval,
        cfg.data,
        cfg.train.seed,
        load_scorers(cfg.eval.scorers, device),
    )
    try:
        damage.raise_on_all_ranks()
    except BadRowsError as error:
        raise ValueError(f"not all utterances could be read: {error}") from error
    return Scores(evaluation, rows, manifest)


def check_known(manifest: Manifest, split: str, speakers: Mapping[str, int]) -> None:
    """Refuse speakers that a checkpoint does not have: another one's voice would be scored.

    Raises:
        ValueError: names them.
    """
    present = set(manifest.counts("speaker", manifest.rows(split)))
    if unknown := sorted(present - set(speakers)):
        shown = ", ".join(unknown[:NAMES_SHOWN]) + (", ..." if unknown[NAMES_SHOWN:] else "")
        raise ValueError(
            f"{manifest.uri}: the checkpoint does not know the speaker {shown} of the split "
            f"{split}; it has {', '.join(sorted(speakers)[:NAMES_SHOWN])}"
        )


def with_rows_of(
    speakers: Mapping[str, int], manifest: Manifest, utterances: Iterable[EvaluationUtterance]
) -> Iterator[EvaluationUtterance]:
    """Yield utterances whose speakers are numbered as in a checkpoint, by their names.

    Args:
        speakers: name -> row of the checkpoint's speaker table.
        manifest: numbers them otherwise, perhaps.
        utterances: utterances of the manifest.
    """
    row_of = torch.zeros(max(manifest.speakers.values()) + 1, dtype=torch.int64)
    for name, number in manifest.speakers.items():
        row_of[number] = speakers.get(name, NOBODY)
    for utterance in utterances:
        batch = replace(utterance.batch, speakers=row_of[utterance.batch.speakers])
        yield replace(utterance, batch=batch)


def stream_spec(data: DataConfig, manifest: Manifest, cfg: Config) -> StreamSpec:
    """Return the description of the data that a training with this configuration would see."""
    return StreamSpec.of_new_run(
        data,
        manifest.digest,
        cfg.train.seed,
        cfg.train.micro_batches_per_step,
        segment_frames=cfg.train.segment_size // data.hop_length,
    )
