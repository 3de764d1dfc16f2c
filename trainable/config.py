"""Configuration of the networks and of their training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NETWORKS = ("g", "d", "dur", "wd")
# files of the generator's weights: its own, and the averaged ones (train.ema_decay)
GENERATORS = ("g", "ema")


@dataclass(frozen=True)
class SlmConfig:
    """The speech language model behind the WavLM discriminator.

    Attributes:
        path: a folder or a hub name of a WavLM, or `random` (a tiny random model made on the spot).
        revision: hub revision of `path`.
        sampling_rate: Hz that the WavLM hears.
        initial_channel: channels of the discriminator's first layer; the others follow from the
            WavLM.
    """

    path: str = "microsoft/wavlm-base-plus"
    revision: str | None = None
    sampling_rate: int = 16000
    initial_channel: int = 64


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of Bert-VITS2 2.3's networks; the defaults are its own.

    Attributes:
        n_speakers: rows of the speaker table; 0: the reference encoder takes its place.
        gin_channels: width of the speaker embedding.
        inter_channels: width of the latent z.
        hidden_channels: width of the encoders.
        filter_channels: width of the encoders' feed-forward layers.
        n_heads: attention heads.
        n_layers: layers of the text encoder; at least 3.
        n_layers_trans_flow: layers of each transformer flow; at least 3.
        n_flow_layer: coupling layers of the flow.
        kernel_size: kernel of the text encoder's feed-forward layers.
        p_dropout: dropout of the encoders.
        resblock: residual block of the decoder.
        resblock_kernel_sizes: kernels of the decoder's residual blocks.
        resblock_dilation_sizes: dilations of each of them.
        upsample_rates: up-sampling of the decoder's stages; their product is data.hop_length.
        upsample_initial_channel: channels that the decoder starts from.
        upsample_kernel_sizes: kernels of the up-sampling layers.
        use_transformer_flow: transformer coupling (VITS2) or residual coupling (VITS).
        use_spk_conditioned_encoder: the text encoder hears the speaker (VITS2).
        use_noise_scaled_mas: noise in the alignment search (VITS2).
        mas_noise_scale_initial: that noise's scale at step 0.
        noise_scale_delta: its decrease a step.
        use_duration_discriminator: train with the duration discriminator (VITS2).
        use_spectral_norm: spectral instead of weight normalisation in the discriminators.
        discriminator_width_divisor: channels of the multi-period discriminator are divided by it
            (1, 2, 4, 8, 16).
        bert_channels: width of the BERT features.
        slm: the speech language model.
    """

    n_speakers: int = 850
    gin_channels: int = 512
    inter_channels: int = 192
    hidden_channels: int = 192
    filter_channels: int = 768
    n_heads: int = 2
    n_layers: int = 6
    n_layers_trans_flow: int = 4
    n_flow_layer: int = 4
    kernel_size: int = 3
    p_dropout: float = 0.1
    resblock: Literal["1", "2"] = "1"
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2, 2)
    upsample_initial_channel: int = 512
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 8, 2, 2)
    use_transformer_flow: bool = True
    use_spk_conditioned_encoder: bool = True
    use_noise_scaled_mas: bool = True
    mas_noise_scale_initial: float = 0.01
    noise_scale_delta: float = 2e-6
    use_duration_discriminator: bool = True
    use_spectral_norm: bool = False
    discriminator_width_divisor: Literal[1, 2, 4, 8, 16] = 1
    bert_channels: int = 1024
    slm: SlmConfig = field(default_factory=SlmConfig)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the generator's sum; the defaults are the reference's.

    Attributes:
        mel: L1 between mel spectrograms (HiFi-GAN).
        kl: Kullback-Leibler divergence of prior and posterior (VITS).
        adversarial: least-squares GAN loss of the multi-period discriminator.
        feature_matching: L1 between that discriminator's features.
        duration: both duration predictors.
        wavlm_feature: L1 between WavLM's features.
        wavlm_adversarial: GAN loss of the WavLM discriminator.
        duration_adversarial: GAN loss of the duration discriminator.
    """

    mel: float = 45.0
    kl: float = 1.0
    adversarial: float = 1.0
    feature_matching: float = 1.0
    duration: float = 1.0
    wavlm_feature: float = 1.0
    wavlm_adversarial: float = 1.0
    duration_adversarial: float = 1.0


@dataclass(frozen=True)
class ClipNorm:
    """Largest gradient norm of each network: a number, `none`, or `reference` (g 500, d 200, and under bf16 only).

    Attributes:
        g: of the generator.
        d: of the multi-period discriminator.
        dur: of the duration discriminator.
        wd: of the WavLM discriminator.
    """

    g: float | Literal["none", "reference"] = "reference"
    d: float | Literal["none", "reference"] = "reference"
    dur: float | Literal["none", "reference"] = "reference"
    wd: float | Literal["none", "reference"] = "reference"

    def limit(self, network: str, precision: str) -> float | None:
        """The norm that the gradients of `network` are clipped to, or None."""
        value = getattr(self, network)
        if value == "reference":
            return {"g": 500.0, "d": 200.0}.get(network) if precision == "bf16" else None
        return None if value == "none" else value


@dataclass(frozen=True)
class LearningRates:
    """Learning rates at step 0 of networks that have one of their own; none: what train.learning_rate says.

    Attributes:
        g: of the generator.
        d: of the multi-period discriminator.
        dur: of the duration discriminator.
        wd: of the WavLM discriminator.
    """

    g: float | None = None
    d: float | None = None
    dur: float | None = None
    wd: float | None = None


@dataclass(frozen=True)
class NotFiniteConfig:
    """What happens when a loss or a gradient is not a finite number, or a gradient explodes.

    Attributes:
        policy: `stop` ends the run with its state intact; `skip` leaves out that network's update
            and goes on; `roll_back` restores the last scheduled checkpoint (a multiple of
            checkpoint.every_steps) before the bad step, and goes on behind that step: the data in
            between are passed over.
        max_grad_norm: a larger gradient norm counts as exploded; none: no norm does.
        max_in_a_row: `skip` stops after so many steps with a left-out update in succession.
        max_roll_backs: `roll_back` stops after so many in succession without a good scheduled
            checkpoint in between.
    """

    policy: Literal["stop", "skip", "roll_back"] = "stop"
    max_grad_norm: float | None = None
    max_in_a_row: int = 10
    max_roll_backs: int = 3


@dataclass(frozen=True)
class CheckpointConfig:
    """How often a run saves itself, and what it keeps.

    Attributes:
        every_steps: global steps between checkpoints.
        keep: the newest checkpoints kept.
        keep_best: those with the best scores kept beside them; above 0 a checkpoint is saved at
            each validation too.
        metric: the score of a checkpoint: a tag of the validation such as `eval/mel` or `eval/mcd`.
        larger_is_better: whether the best checkpoint has the largest score rather than the
            smallest.
        retry_s: seconds that a write to the run's folder is tried again where the storage fails;
            three checkpoints in a row that could not be saved stop the run.
    """

    every_steps: int = 1000
    keep: int = 3
    keep_best: int = 1
    metric: str = "eval/mel"
    larger_is_better: bool = False
    retry_s: float = 60.0

    def __post_init__(self) -> None:
        for key, low in (("every_steps", 1), ("keep", 1), ("keep_best", 0)):
            if getattr(self, key) < low:
                raise ValueError(
                    f"train.checkpoint.{key} is {getattr(self, key)}: give a number from {low}"
                )

    def cost(self, scores: Mapping[str, float]) -> float | None:
        """The metric as a number of which smaller is better; None where it is not among the scores."""
        score = scores.get(self.metric)
        return -score if score is not None and self.larger_is_better else score

    @property
    def ranks_by(self) -> str:
        """What `cost` is of: costs of two configurations can be compared where it is the same."""
        return f"-{self.metric}" if self.larger_is_better else self.metric


@dataclass(frozen=True)
class TrainConfig:
    """Training.

    Attributes:
        seed: of the plan, of the initial weights and of every random draw.
        max_steps: global steps in all.
        micro_batches_per_step: G, micro-batches of a global step, whatever the number of workers.
        segment_size: samples of the decoded segment.
        precision: arithmetic of the networks; losses, mels and alignment stay fp32.
        reduction: `exact` sums gradients to the same bits for any number of workers, `fast` is
            DDP's own.
        learning_rate: at step 0; `skip_optimizer: false` gives a network that of its published
            weights instead.
        learning_rates: those of single networks, instead of either.
        lr_decay: factor on the learning rate each `lr_decay_by`.
        lr_decay_by: `epoch` as the reference, or `step`, which does not depend on the size of the
            corpus.
        warmup_steps: steps over which the learning rate rises from 0.
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: of AdamW.
        clip_norm: gradient clipping.
        not_finite: what happens on NaN, infinity and exploding gradients.
        loss_weights: of the generator's sum.
        duration_discriminator_loss: `faithful` adds up the scores of both predictors and sums over
            the batch, padding included, as the reference does; `corrected` is the mean over real
            tokens of each predictor's own score.
        freeze: parameters that keep their values: `zh_bert`, `jp_bert`, `en_bert` (the projections
            of those features), or patterns over `<network>.<parameter>` such as `g.dec.*`.
        init_from: weights to start from: a folder or URI of published ones (G_*, D_*, DUR_*,
            WD_*.pth or .safetensors), a run (`runs/x`), its best checkpoint (`runs/x/best`) or
            another of this trainer, or a name on the hub, `user/model` or `user/model@revision`.
        skip_optimizer: leave the optimizer states and learning rates of `init_from`; false takes
            them over.
        hub_endpoint: mirror of the hub for `init_from`; none: what HF_ENDPOINT says. HF_TOKEN is
            the access token.
        matmul_precision: torch.set_float32_matmul_precision; `auto`: high on a GPU (TF32), highest
            on a CPU.
        activation_checkpointing: compute the activations of the decoder, the flow and the
            discriminators again in the backward pass instead of keeping them: less memory, more
            time, the same losses.
        deterministic: ask torch for deterministic kernels; always on when reduction is exact.
        rehearse: try out the plan's costliest micro-batches before the first step, so that what
            does not fit the memory fails at once; `auto`: on a GPU.
        log_every_steps: global steps between scalars in TensorBoard and lines on the console.
        image_every_steps: global steps between images in TensorBoard.
        checkpoint: saving.
        ema_decay: d of the generator's averaged weights, a <- d a + (1 - d) w after each step,
            which are evaluated and saved beside the weights themselves; 0: there are none.
        hang_timeout_s: a worker of which no step ends for so long says where it is, ends, and the
            run goes on from the newest checkpoint; three times as long for a first step, a
            validation and a checkpoint.
    """

    seed: int = 42
    max_steps: int = 500_000
    micro_batches_per_step: int = 1
    segment_size: int = 16384
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    reduction: Literal["fast", "exact"] = "fast"
    learning_rate: float = 2e-4
    learning_rates: LearningRates = field(default_factory=LearningRates)
    lr_decay: float = 0.99995
    lr_decay_by: Literal["epoch", "step"] = "epoch"
    warmup_steps: int = 0
    betas: tuple[float, float] = (0.8, 0.99)
    eps: float = 1e-9
    weight_decay: float = 0.01
    clip_norm: ClipNorm = field(default_factory=ClipNorm)
    not_finite: NotFiniteConfig = field(default_factory=NotFiniteConfig)
    loss_weights: LossWeights = field(default_factory=LossWeights)
    duration_discriminator_loss: Literal["faithful", "corrected"] = "faithful"
    freeze: tuple[str, ...] = ()
    init_from: str | None = None
    skip_optimizer: bool = True
    hub_endpoint: str | None = None
    matmul_precision: Literal["auto", "highest", "high", "medium"] = "auto"
    activation_checkpointing: bool = False
    deterministic: bool = False
    rehearse: Literal["auto", "always", "never"] = "auto"
    log_every_steps: int = 10
    image_every_steps: int = 200
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    ema_decay: float = 0.0
    hang_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"train.ema_decay is {self.ema_decay}: give a number from 0 to below 1, such as 0.999"
            )


@dataclass(frozen=True)
class ScorerConfig:
    """What else scores a synthesis.

    Attributes:
        factory: `module:function` that makes it; see trainable.evaluation.scorers.
        path: its weights.
    """

    factory: str
    path: str


@dataclass(frozen=True)
class EvalConfig:
    """Validation.

    Attributes:
        every_steps: global steps between validations.
        max_utterances: utterances of the validation split that are scored, and as many of the
            training split beside them; fixed sets.
        syntheses: of the validation's, how many are synthesised freely and compared with the
            recording.
        samples: of these, how many are plotted and written as audio.
        max_frames: longest synthesis; what comes after is cut, however long an untrained voice
            would speak.
        sentences: language -> a text that is spoken at each validation, by the speaker with most
            utterances of it.
        scorers: name -> what else scores the syntheses; needs weights of the user's.
        stop_after: validations without a better score (train.checkpoint.metric) after which the run
            ends; 0: it goes on to train.max_steps.
    """

    every_steps: int = 1000
    max_utterances: int = 64
    syntheses: int = 16
    samples: int = 4
    max_frames: int = 1000
    sentences: dict[str, str] = field(default_factory=dict)
    scorers: dict[str, ScorerConfig] = field(default_factory=dict)
    stop_after: int = 0
