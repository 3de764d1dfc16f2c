"""A run's validations: fixed sets scored by all workers, sentences spoken, and what the scores say of the training."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from data.shards.manifest import SPLITS, Manifest
from data.stream.pipeline import Damage, StreamSpec, evaluation_rows, evaluation_set
from trainable.config import EvalConfig, TrainConfig
from trainable.distributed.collectives import world_size
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

    def __init__(
        self,
        cfg: EvalConfig,
        train: TrainConfig,
        spec: StreamSpec,
        manifest: Manifest,
        state: TrainState,
        rank: int,
        damage: Damage,
        agree: Callable[[str], str],
    ) -> None:
        """Choose the sets and make the scorers; a collective call.

        Args:
            cfg: what is scored.
            train: the training's settings: its seed, and which score counts.
            spec: names the data.
            manifest: of the data.
            state: holds the generator, and remembers the validations.
            rank: of this worker.
            damage: hears of rows that cannot be read.
            agree: hands one worker's error to all.

        Raises:
            ValueError: on all ranks, where one of them cannot make a scorer.
        """
        self.cfg, self.train, self.spec, self.manifest = cfg, train, spec, manifest
        self.state, self.rank, self.damage = state, rank, damage
        self.sets = {split: evaluation_rows(spec, split, cfg.max_utterances) for split in SPLITS}
        # read when they are first spoken: a restart must not wait for it
        self.sentences: list[Sentence] | None = None
        self.scorers, error = dict[str, Scorer](), ""
        try:
            self.scorers = load_scorers(cfg.scorers, self.device)
        except ValueError as problem:
            error = str(problem)
        if error := agree(error):
            raise ValueError(error)

    def __call__(self, step: int, records: RunLog) -> dict[str, float]:
        """Validate, record it, remember it in the state and say what it means; a collective call.

        Args:
            step: global steps done.
            records: where the scores and samples go.

        Returns:
            Tag -> score, of the finite ones.
        """
        cfg, averaged = self.cfg, self.state.averaged
        languages = self.manifest.column("language")[self.sets["validation"]].tolist()
        validation = self.scored("validation", cfg)
        scores = validation.means(groups=languages)
        scores |= self.scored("train", replace(cfg, syntheses=0)).means("eval/train_")
        if averaged is not None:
            with averaged.in_place():
                scores |= self.scored("validation", replace(cfg, samples=0)).means("eval/ema_")
        self.damage.settle()
        records.evaluation(
            step, scores, validation.samples, self.spoken(), self.spec.data.sampling_rate
        )
        scores = {tag: value for tag, value in scores.items() if math.isfinite(value)}
        self.judge(step, scores)
        return scores

    @property
    def generator(self) -> SynthesizerTrn:
        """The network that is trained, without its wrapping."""
        return unwrapped(self.state.nets["g"])  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.generator.parameters()).device

    def scored(self, split: str, cfg: EvalConfig) -> Evaluation:
        """The scores of a split's fixed set with the weights that the generator has now; a collective call."""
        rows, data = self.sets[split], self.spec.data
        own = evaluation_set(self.spec, rows, self.rank, world_size(), self.damage)
        return evaluate(self.generator, own, len(rows), cfg, data, self.train.seed, self.scorers)

    def spoken(self) -> dict[str, np.ndarray]:
        """What the fixed sentences sound like now, on rank 0: tag -> [samples]."""
        if self.rank:
            return {}
        data = self.spec.data
        if self.sentences is None:
            try:
                self.sentences = read_sentences(self.cfg.sentences, data, self.manifest)
            except (ValueError, OSError) as error:
                log.warning("the sentences of eval.sentences are not spoken: %s", error)
                self.sentences = []
        told = (data.bert.inactive, self.train.seed, self.cfg.max_frames)
        return {sentence.tag: speak(self.generator, sentence, *told) for sentence in self.sentences}

    def judge(self, step: int, scores: dict[str, float]) -> None:
        """Remember a validation, and say what they all mean."""
        state, cfg = self.state, self.train.checkpoint
        mels = scores.get("eval/mel"), scores.get("eval/train_mel")
        state.validations += (Validation(step, cfg.cost(scores), *mels, cfg.ranks_by),)
        if self.rank:
            return
        shown = ", ".join(f"{tag} {v:.4f}" for tag, v in scores.items() if tag.count("/") == 1)
        log.info("step %d validation: %s", step, shown)
        best = best_of(state.validations, cfg.ranks_by)
        if best is not None and best.step < step:
            log.info("step %d: %s was best at step %d", step, cfg.metric, best.step)
        if overfits(state.validations):
            log.warning(
                "step %d: overfits: the training set's mel loss falls, the validation set's rises",
                step,
            )
        if gives_up(state.validations, self.cfg.stop_after, cfg.ranks_by):
            log.warning(
                "step %d: no better %s for %d validations: stops (eval.stop_after)",
                step,
                cfg.metric,
                self.cfg.stop_after,
            )
