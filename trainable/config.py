"""Configuration of the training and of its validation."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from data.settings.declared import Amount, Count, Line, Range, Seed, Settings, Size, Text
from trainable.networks.registry import AVERAGED, GENERATOR, Network, Term, network, networks, terms

# files of the generator's weights: its own, and the averaged ones (train.ema_decay)
GENERATORS = (GENERATOR, AVERAGED)
Beta = Annotated[float, Range(0, below=1)]
Limit = Annotated[float, Range(above=0)]
Steps = Annotated[int, Range(0)]
Keys = Mapping[str, tuple[Any, Any, str]]  # name -> type, default and meaning


def with_keys(keys: Keys) -> Callable[[type], type]:
    """Return a decorator that gives a class annotated fields, and documents them.

    For keys of the configuration that follow from declarations. Networks and loss terms that are
    registered after this module was imported have no keys; they keep the declared defaults.
    """

    def add(cls: type) -> type:
        cls.__annotations__ = {name: hint for name, (hint, _, _) in keys.items()}
        for name, (_, default, _) in keys.items():
            setattr(cls, name, default)
        meanings = "".join(f"    {name}: {meaning}\n" for name, (_, _, meaning) in keys.items())
        cls.__doc__ = f"{cls.__doc__}\n\nAttributes:\n{meanings}"
        return cls

    return add


@dataclass(frozen=True)
@with_keys({term.name: (Amount, term.weight, term.help) for term in terms()})
class LossWeights(Settings, section="train.loss_weights"):
    """Weights of the generator's sum; the defaults are the reference trainer's."""

    def of(self, term: Term) -> float:
        """Return the weight of a term; its default where it was registered too late to be a key."""
        return getattr(self, term.name, term.weight)


_FIRST: Keys = {
    term.name: (Limit, 1.0, f"factor on train.loss_weights.{term.name} at step 0.")
    for term in terms()
}


@dataclass(frozen=True)
@with_keys(
    {"steps": (Steps, 0, "steps until all factors are 1; 0: they are from the start."), **_FIRST}
)
class LossRamp(Settings, section="train.loss_ramp"):
    """Factors on the weights of the generator's sum, which rise or fall to 1, each step alike.

    A small factor on `kl` lets z carry more of the sound at first, from which the alignment is
    found sooner (Bowman et al., 2016, arXiv:1511.06349).
    """

    def problems(self) -> Iterator[str]:
        """Yield factors that no step would have."""
        factors = {term.name: getattr(self, term.name, 1.0) for term in terms()}
        begun = [f"{name} is {factor}" for name, factor in factors.items() if factor != 1.0]
        if begun and not self.steps:  # type: ignore[attr-defined]
            yield (
                f"train.loss_ramp.{begun[0]}, but train.loss_ramp.steps is 0: give the steps after "
                "which it is 1"
            )

    def of(self, term: Term, step: int) -> float:
        """Return the factor of a term in the step that follows `step` steps."""
        steps: int = self.steps  # type: ignore[attr-defined]
        first = getattr(self, term.name, 1.0)
        return first ** (1 - step / steps) if step < steps else 1.0


Clip = Limit | Literal["none", "reference"]
Rate = Limit | None


def _meaning_of_clip(net: Network) -> str:
    clip = net.reference_clip
    reference = "no limit" if clip is None else f"{clip:g} under bf16, else no limit"
    return f"limit for {net.description}; `reference`: {reference}."


@dataclass(frozen=True)
@with_keys({net.name: (Clip, "reference", _meaning_of_clip(net)) for net in networks()})
class ClipNorm(Settings, section="train.clip_norm"):
    """Largest gradient norm of each network: a number, `none`, or `reference`, as listed here."""

    def limit(self, name: str, precision: str) -> float | None:
        """Return the norm that the gradients of a network are clipped to, or None."""
        value = getattr(self, name, "reference")
        if value == "reference":
            return network(name).reference_clip if precision == "bf16" else None
        return None if isinstance(value, str) else value


@dataclass(frozen=True)
@with_keys(
    {net.name: (Rate, net.learning_rate, f"rate of {net.description}.") for net in networks()}
)
class LearningRates(Settings, section="train.learning_rates"):
    """Learning rates at step 0 of single networks; none: train.learning_rate."""

    def of(self, name: str) -> float | None:
        """Return the learning rate of a network, or None if it has none of its own."""
        return getattr(self, name, network(name).learning_rate)


@dataclass(frozen=True)
class NotFiniteConfig(Settings, section="train.not_finite"):
    """What happens when a loss or a gradient is not a finite number, or a gradient explodes.

    Attributes:
        policy: `stop` ends the run with its state intact; `skip` leaves out that network's update
            and continues; `roll_back` restores the last scheduled checkpoint (a multiple of
            checkpoint.every_steps) before the bad step and continues behind that step: the data in
            between are passed over.
        max_grad_norm: a larger gradient norm counts as exploded; none: no norm does.
        max_in_a_row: `skip` stops after this many steps in a row with an update left out.
        max_roll_backs: `roll_back` stops after this many roll-backs in a row without a good
            scheduled checkpoint in between.
    """

    policy: Literal["stop", "skip", "roll_back"] = "stop"
    max_grad_norm: Limit | None = None
    max_in_a_row: Annotated[int, Range(0)] = 10
    max_roll_backs: Annotated[int, Range(0)] = 3


@dataclass(frozen=True)
class CheckpointConfig(Settings, section="train.checkpoint"):
    """How often a run saves itself, and what it keeps.

    Attributes:
        every_steps: global steps between checkpoints.
        keep: how many of the newest checkpoints are kept; 0: all.
        keep_best: how many of those with the best scores are kept beside them; above 0, a
            checkpoint is also saved at each validation.
        metric: the score of a checkpoint: a tag of the validation such as `eval/mel` or `eval/mcd`.
        larger_is_better: whether the best checkpoint has the largest score rather than the
            smallest.
        retry_s: seconds for which a write to the run's folder is retried if the storage fails;
            three checkpoints in a row that could not be saved stop the run.
    """

    every_steps: Count = 1000
    keep: Annotated[int, Range(0)] = 3
    keep_best: Annotated[int, Range(0)] = 1
    metric: Text = "eval/mel"
    larger_is_better: bool = False
    retry_s: Amount = 60.0

    def cost(self, scores: Mapping[str, float]) -> float | None:
        """Return the metric as a number of which smaller is better; None if there is no score."""
        score = scores.get(self.metric)
        return -score if score is not None and self.larger_is_better else score

    @property
    def ranks_by(self) -> str:
        """What `cost` measures: costs of two configurations can be compared if it is the same."""
        return f"-{self.metric}" if self.larger_is_better else self.metric


@dataclass(frozen=True)
class TrainConfig(Settings, section="train"):
    """Training.

    Attributes:
        seed: decides the plan, the initial weights and every random draw.
        max_steps: global steps after which the run ends.
        micro_batches_per_step: G, micro-batches per global step, whatever the number of workers.
        segment_size: samples of the decoded segment.
        precision: arithmetic of the networks; losses, mels and alignment stay fp32. `auto` is bf16
            where all workers have GPUs that compute it (Ampere and newer), else fp32; a run that
            resumes keeps what it began with.
        reduction: `exact` sums gradients to the same bits for any number of workers, `fast` is
            DDP's own sum.
        learning_rate: learning rate at step 0; with `skip_optimizer: false` a network takes that of
            its published weights instead.
        learning_rates: learning rates of single networks, instead of either.
        lr_decay: factor on the learning rate each `lr_decay_by`.
        lr_decay_by: `epoch` as in the reference trainer, or `step`, which does not depend on the
            size of the corpus.
        warmup_steps: steps over which the learning rate rises from 0.
        betas: AdamW's decay rates of the moments.
        eps: AdamW's addend to the denominator.
        weight_decay: AdamW's weight decay.
        clip_norm: gradient clipping.
        not_finite: what happens on NaN, infinity and exploding gradients.
        loss_weights: weights of the generator's sum.
        loss_ramp: factors on these weights in the first steps.
        adversarial_from_step: step from which the discriminators are trained and heard. Before it
            the generator learns from the other terms alone, in less time per step, as Vocos does it
            (pretrain_mel_steps).
        duration_discriminator_loss: `faithful` adds up the scores of both predictors and sums over
            the batch, padding included, as the reference trainer does; `corrected` is the mean over
            real tokens of each predictor's own score.
        freeze: parameters that keep their values: `zh_bert`, `jp_bert`, `en_bert` (the projections
            of those features), or patterns over `<network>.<parameter>` such as `g.dec.*`.
        init_from: weights to start from: a folder or URI of published ones (G_*, D_*, DUR_*,
            WD_*.pth or .safetensors), a run (`runs/x`), its best checkpoint (`runs/x/best`) or
            another of this trainer, or a name on the hub, `user/model` or `user/model@revision`.
        init_step: step at which a run with `init_from` begins, so that the noise of the alignment
            and the learning rate go on: `auto` is the number in the name of its G_<step> file, 0
            for a run of this trainer. The epoch is the file's, unless the step is 0.
        skip_optimizer: ignore the optimizer states and learning rates of `init_from`; false takes
            them over.
        hub_endpoint: mirror of the hub for `init_from`; none: the value of HF_ENDPOINT. HF_TOKEN is
            the access token.
        ddp_bucket_mb: MiB of gradients that are sent at once while the backward pass goes on.
        ddp_gradients: what workers send of a gradient with `reduction: fast`: `bf16` is half the
            bytes and keeps 8 bits of each, which pays on slow networks. A run may change it when it
            resumes.
        matmul_precision: torch.set_float32_matmul_precision; `auto`: high on a GPU (TF32), highest
            on a CPU.
        activation_checkpointing: compute the activations of the decoder, the flow and the
            discriminators again in the backward pass instead of keeping them: less memory, more
            time, the same losses.
        compile: `parts` has torch.compile compile the parts of the networks where that pays on a
            GPU, in the first steps, which takes minutes; not with `reduction: exact`. A run may
            change it when it resumes: the last bits are others.
        deterministic: ask torch for deterministic kernels; always on if reduction is exact.
        rehearse: try out the plan's costliest micro-batches before the first step, so that a run
            that does not fit the memory fails at once; `auto`: on a GPU only.
        log_every_steps: global steps between scalars in TensorBoard and lines on the console.
        image_every_steps: global steps between images in TensorBoard.
        checkpoint: how often the run saves itself, and what it keeps.
        ema_decay: d of the generator's averaged weights, a <- d a + (1 - d) w after each step,
            which are evaluated and saved beside the weights themselves; 0: no averaging.
        hang_timeout_s: seconds. If no step finishes within this time, the worker logs its stack and
            exits, and the run resumes from the newest checkpoint; three times as long for a first
            step, a validation and a checkpoint.
        measure_mfu: measure which share of the device's best speed the steps reach: `mfu` in the
            metrics. The first step of each start is slower, as its operations are counted.
        profile_steps: first and last global step, counted from 1, that rank 0 profiles, host and
            device; the trace lies in the run's folder, `profile/`. None: no step is profiled.
    """

    seed: Seed = 42
    max_steps: Count = 500_000
    micro_batches_per_step: Count = 1
    segment_size: Count = 16384
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    reduction: Literal["fast", "exact"] = "fast"
    learning_rate: Limit = 2e-4
    learning_rates: LearningRates = field(default_factory=LearningRates)
    lr_decay: Annotated[float, Range(above=0, high=1)] = 0.99995
    lr_decay_by: Literal["epoch", "step"] = "epoch"
    warmup_steps: Annotated[int, Range(0)] = 0
    betas: tuple[Beta, Beta] = (0.8, 0.99)
    eps: Limit = 1e-9
    weight_decay: Amount = 0.01
    clip_norm: ClipNorm = field(default_factory=ClipNorm)
    not_finite: NotFiniteConfig = field(default_factory=NotFiniteConfig)
    loss_weights: LossWeights = field(default_factory=LossWeights)
    loss_ramp: LossRamp = field(default_factory=LossRamp)
    adversarial_from_step: Steps = 0
    duration_discriminator_loss: Literal["faithful", "corrected"] = "faithful"
    freeze: tuple[Text, ...] = ()
    init_from: Text | None = None
    init_step: Annotated[int, Range(0)] | Literal["auto"] = "auto"
    skip_optimizer: bool = True
    hub_endpoint: Text | None = None
    ddp_bucket_mb: Limit = 25.0
    ddp_gradients: Literal["fp32", "bf16"] = "fp32"
    matmul_precision: Literal["auto", "highest", "high", "medium"] = "auto"
    activation_checkpointing: bool = False
    compile: Literal["off", "parts"] = "off"
    deterministic: bool = False
    rehearse: Literal["auto", "always", "never"] = "auto"
    log_every_steps: Count = 10
    image_every_steps: Count = 200
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    ema_decay: Annotated[float, Range(0, below=1)] = 0.0
    hang_timeout_s: Limit = 600.0
    measure_mfu: bool = False
    profile_steps: tuple[Count, Count] | None = None

    def problems(self) -> Iterator[str]:
        """Yield first steps without weights or behind the last, and steps that never come."""
        if self.init_step != "auto":
            yield from self._problems_of_the_first_step(self.init_step)
        if self.profile_steps is None:
            return
        first, last = self.profile_steps
        if not first <= last <= self.max_steps:
            yield (
                f"train.profile_steps is {list(self.profile_steps)}: give the first and the last "
                f"step, of which none is beyond train.max_steps {self.max_steps}"
            )

    def _problems_of_the_first_step(self, first: int) -> Iterator[str]:
        if first and self.init_from is None:
            yield (
                f"train.init_step is {first}: weights without those steps would go on with them; "
                "give train.init_from, or leave it out"
            )
        if first >= self.max_steps:
            yield (
                f"train.init_step is {first}: train.max_steps {self.max_steps} must be beyond it, "
                "as it counts these steps too"
            )


@dataclass(frozen=True)
class ScorerConfig(Settings, section="eval.scorers"):
    """A further score of a synthesis.

    Attributes:
        factory: `module:function` that makes the scorer; see trainable.evaluation.scorers.
        path: weights of the scorer.
    """

    factory: Text
    path: Line


@dataclass(frozen=True)
class EvalConfig(Settings, section="eval"):
    """Validation.

    Attributes:
        every_steps: global steps between validations.
        max_utterances: utterances of the validation split that are scored, and as many of the
            training split beside them; the sets stay the same throughout a run.
        syntheses: how many of the validation utterances are synthesised freely and compared with
            the recording.
        samples: how many of these are plotted and written as audio.
        max_frames: longest synthesis, in frames; the rest is cut, since an untrained voice may
            never end.
        sentences: language -> text that is spoken at each validation, by the speaker with the most
            utterances in that language.
        scorers: name -> further score of the syntheses; needs weights of your own.
        stop_after: validations without a better score (train.checkpoint.metric) after which the run
            ends; 0: it continues to train.max_steps.
    """

    every_steps: Count = 1000
    max_utterances: Count = 64
    syntheses: Annotated[int, Range(0)] = 16
    samples: Annotated[int, Range(0)] = 4
    max_frames: Count = 1000
    sentences: dict[str, Annotated[str, Size(1)]] = field(default_factory=dict)
    scorers: dict[str, ScorerConfig] = field(default_factory=dict)
    stop_after: Annotated[int, Range(0)] = 0
