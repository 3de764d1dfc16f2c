"""A run's validations: fixed sets scored by all workers, sentences spoken, conclusions drawn."""

import logging
import math
from dataclasses import replace

import numpy as np
import torch

from data.shards.manifest import SPLITS, Manifest
from data.stream.collectives import CollectiveAgreement
from data.stream.damage import Damage
from data.stream.evaluation import evaluation_rows, evaluation_set
from data.stream.spec import StreamSpec
from trainable.config import EvalConfig, TrainConfig
from trainable.distributed.collectives import collective, world_size
from trainable.distributed.wrapping import unwrapped
from trainable.evaluation.evaluate import Evaluation, evaluate
from trainable.evaluation.scorers import Scorer, load_scorers
from trainable.evaluation.sentences import Sentence, read_sentences, speak
from trainable.learning.judgement import Validation, best_of, gives_up, overfits
from trainable.learning.state import TrainState
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.run.records import RunLog

log = logging.getLogger("bert_vits2_ray")


class Validator:
    """Scores the run's generator from time to time."""

    @collective
    def __init__(
        self,
        cfg: EvalConfig,
        train: TrainConfig,
        spec: StreamSpec,
        manifest: Manifest,
        state: TrainState,
        rank: int,
        damage: Damage,
        first_error: CollectiveAgreement,
    ) -> None:
        """Choose the sets and make the scorers.

        Args:
            cfg: what is scored.
            train: the training: its seed, and which score counts.
            spec: names the data.
            manifest: manifest of the data.
            state: holds the generator, and remembers the validations.
            rank: rank of this worker.
            damage: notes rows that cannot be read.
            first_error: makes one rank's error known to all.

        Raises:
            ValueError: on all ranks, if one of them cannot make a scorer.
        """
        self.cfg = cfg
        self.train = train
        self.spec = spec
        self.manifest = manifest
        self.state = state
        self.rank = rank
        self.damage = damage
        self.sets = {split: evaluation_rows(spec, split, cfg.max_utterances) for split in SPLITS}
        # read when they are first spoken: a restart must not wait for it
        self.sentences: list[Sentence] | None = None

        self.scorers: dict[str, Scorer] = {}
        own_error = ""
        try:
            self.scorers = load_scorers(cfg.scorers, self.device)
        except ValueError as error:
            own_error = str(error)
        if error_of_any := first_error(own_error):
            raise ValueError(error_of_any)

    @collective
    def validate(self, step: int, records: RunLog) -> dict[str, float]:
        """Validate, record the scores, remember them in the state, and log what they mean.

        Args:
            step: global steps done.
            records: where the scores and samples go.

        Returns:
            Tag -> score, without those that are not finite.
        """
        languages = self.manifest.values("language", self.sets["validation"])
        validation = self.score_split("validation", self.cfg)
        scores = validation.means(groups=languages)

        # for a comparison of mel losses alone, which shows overfitting
        without_syntheses = replace(self.cfg, syntheses=0)
        scores |= self.score_split("train", without_syntheses).means("eval/train_")

        averaged = self.state.averaged
        if averaged is not None:
            without_samples = replace(self.cfg, samples=0)
            with averaged.in_place():
                scores |= self.score_split("validation", without_samples).means("eval/ema_")
        # all ranks have read their shares: here they agree whether every row could be read
        self.damage.raise_on_all_ranks()

        sampling_rate = self.spec.data.sampling_rate
        spoken = self.spoken()
        samples = validation.samples
        records.evaluation(step, scores, samples, spoken, sampling_rate, self.texts())
        scores = {tag: value for tag, value in scores.items() if math.isfinite(value)}
        self.remember(step, scores)
        if self.rank == 0:
            self.log_conclusions(step, scores)
        return scores

    @property
    def generator(self) -> SynthesizerTrn:
        """The network that is trained, without its wrapping."""
        return unwrapped(self.state.nets["g"])  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the generator lies."""
        return next(self.generator.parameters()).device

    @collective
    def score_split(self, split: str, cfg: EvalConfig) -> Evaluation:
        """Score a split's fixed set with the weights that the generator has now."""
        rows = self.sets[split]
        own = evaluation_set(self.spec, rows, self.rank, world_size(), self.damage)
        return evaluate(
            self.generator, own, len(rows), cfg, self.spec.data, self.train.seed, self.scorers
        )

    def spoken(self) -> dict[str, np.ndarray]:
        """Speak the fixed sentences on rank 0: tag -> [samples]."""
        if self.rank:
            return {}
        data = self.spec.data
        if self.sentences is None:
            # of the other languages the start has told that nobody speaks them
            languages = self.manifest.words("language")
            sentences = {own: text for own, text in self.cfg.sentences.items() if own in languages}
            try:
                self.sentences = read_sentences(sentences, data, self.manifest)
            except (ValueError, OSError) as error:
                log.warning("the sentences of eval.sentences are not spoken: %s", error)
                self.sentences = []
        told = (data.bert, self.train.seed, self.cfg.max_frames)
        return {sentence.tag: speak(self.generator, sentence, *told) for sentence in self.sentences}

    def texts(self) -> dict[str, str]:
        """Return what the fixed sentences say: tag -> text."""
        return {sentence.tag: sentence.text for sentence in self.sentences or ()}

    def remember(self, step: int, scores: dict[str, float]) -> None:
        """Remember a validation in the state."""
        checkpoint = self.train.checkpoint
        validation = Validation(
            step,
            score=checkpoint.cost(scores),
            mel=scores.get("eval/mel"),
            train_mel=scores.get("eval/train_mel"),
            ranks_by=checkpoint.ranks_by,
        )
        self.state.validations += (validation,)

    def log_conclusions(self, step: int, scores: dict[str, float]) -> None:
        """Log the scores of a validation, and what all validations so far mean."""
        validations = self.state.validations
        checkpoint = self.train.checkpoint
        shown = ", ".join(f"{tag} {v:.4f}" for tag, v in scores.items() if tag.count("/") == 1)
        log.info("step %d validation: %s", step, shown)

        best = best_of(validations, checkpoint.ranks_by)
        if best is not None and best.step < step:
            log.info("step %d: %s was best at step %d", step, checkpoint.metric, best.step)
        if overfits(validations):
            log.warning(
                "step %d: overfitting: the training set's mel loss falls, "
                "the validation set's rises",
                step,
            )
        if gives_up(validations, self.cfg.stop_after, checkpoint.ranks_by):
            log.warning(
                "step %d: early stopping: %s did not improve in %d validations (eval.stop_after)",
                step,
                checkpoint.metric,
                self.cfg.stop_after,
            )
