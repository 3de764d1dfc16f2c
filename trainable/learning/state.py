"""All that is trained, and all that a checkpoint holds: networks, optimizers, scalers, exponents, position."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from data.config import DataConfig
from data.plan.epoch_plan import Position
from data.text.symbols import SYMBOLS
from trainable.config import ModelConfig, TrainConfig
from trainable.distributed.wrapping import unwrapped
from trainable.learning.ema import AveragedWeights
from trainable.learning.judgement import Spans, Validation
from trainable.learning.losses import WavLMFeatures
from trainable.learning.optimizer import (
    build_optimizer,
    freeze,
    learning_rate,
    load_moments,
    moments,
)
from trainable.learning.reduction import ExactReduction, FastReduction, Reduction
from trainable.networks.discriminators.duration import DurationDiscriminator
from trainable.networks.discriminators.period import MultiPeriodDiscriminator
from trainable.networks.discriminators.wavlm import WavLMDiscriminator
from trainable.networks.generator.synthesizer import SynthesizerTrn

PERIODS = 6  # sub-discriminators of the multi-period discriminator
# the duration discriminator's losses have a value an utterance: these many are logged
LOGGED_ITEMS = 8


def build_networks(
    model: ModelConfig, train: TrainConfig, data: DataConfig, slm: WavLMFeatures
) -> dict[str, nn.Module]:
    """The networks that are trained, with initial weights that depend on train.seed alone.

    Raises:
        ValueError: sizes that do not fit each other, with the key to change.
    """
    check_sizes(model, train, data)
    torch.manual_seed(train.seed)
    nets: dict[str, nn.Module] = {
        "g": build_generator(model, train.segment_size, data),
        "d": MultiPeriodDiscriminator(model.use_spectral_norm, model.discriminator_width_divisor),
        "wd": WavLMDiscriminator(
            slm.hidden_size,
            slm.num_states,
            model.slm.initial_channel,
            use_spectral_norm=model.use_spectral_norm,
        ),
    }
    if model.use_duration_discriminator:
        nets["dur"] = DurationDiscriminator(
            model.hidden_channels, model.hidden_channels, 3, 0.1, gin_channels=model.gin_channels
        )
    freeze(nets, train.freeze)
    for part in (nets["g"].dec, nets["g"].flow, nets["d"]):
        part.recompute = train.activation_checkpointing  # type: ignore[union-attr]
    return nets


def build_generator(model: ModelConfig, segment_size: int, data: DataConfig) -> SynthesizerTrn:
    """The generator alone, for synthesis too."""
    return SynthesizerTrn(
        n_vocab=len(SYMBOLS),
        spec_channels=data.filter_length // 2 + 1,
        segment_size=segment_size // data.hop_length,
        inter_channels=model.inter_channels,
        hidden_channels=model.hidden_channels,
        filter_channels=model.filter_channels,
        n_heads=model.n_heads,
        n_layers=model.n_layers,
        kernel_size=model.kernel_size,
        p_dropout=model.p_dropout,
        resblock=model.resblock,
        resblock_kernel_sizes=model.resblock_kernel_sizes,
        resblock_dilation_sizes=model.resblock_dilation_sizes,
        upsample_rates=model.upsample_rates,
        upsample_initial_channel=model.upsample_initial_channel,
        upsample_kernel_sizes=model.upsample_kernel_sizes,
        n_speakers=model.n_speakers,
        gin_channels=model.gin_channels,
        n_flow_layer=model.n_flow_layer,
        n_layers_trans_flow=model.n_layers_trans_flow,
        use_transformer_flow=model.use_transformer_flow,
        use_spk_conditioned_encoder=model.use_spk_conditioned_encoder,
        use_noise_scaled_mas=model.use_noise_scaled_mas,
        mas_noise_scale_initial=model.mas_noise_scale_initial,
        noise_scale_delta=model.noise_scale_delta,
        bert_channels=model.bert_channels,
    )


def alignment_noise(model: ModelConfig, step: int) -> float:
    """Scale of the noise in the alignment search of the step that follows `step` steps."""
    return max(model.mas_noise_scale_initial - model.noise_scale_delta * step, 0.0)


def check_sizes(model: ModelConfig, train: TrainConfig, data: DataConfig) -> None:
    """Refuse settings that do not fit each other.

    Raises:
        ValueError: names the keys.
    """
    if model.n_speakers == 0 and model.use_spk_conditioned_encoder:
        raise ValueError(
            "model.use_spk_conditioned_encoder needs a speaker table: set model.n_speakers to the number of "
            "speakers, or turn it off to train without one (the voice is then taken from the recording itself)"
        )
    product = 1
    for rate in model.upsample_rates:
        product *= rate
    if product != data.hop_length:
        raise ValueError(
            f"model.upsample_rates multiply to {product}, but data.hop_length is {data.hop_length}: make them equal"
        )
    if train.segment_size % data.hop_length:
        raise ValueError(
            f"train.segment_size {train.segment_size} must be a multiple of data.hop_length {data.hop_length}"
        )
    if train.reduction == "exact" and model.use_spectral_norm:
        raise ValueError(
            "train.reduction exact cannot be had with model.use_spectral_norm: its buffers change with every forward "
            "pass, so the result would depend on the number of workers; use train.reduction fast"
        )
    if train.reduction == "exact" and train.precision == "fp16":
        raise ValueError(
            "train.reduction exact needs train.precision fp32 or bf16: fp16's loss scaling skips steps"
        )
    if (
        train.precision == "fp16"
        and train.not_finite.policy == "skip"
        and train.not_finite.max_grad_norm is not None
    ):
        raise ValueError(
            "train.not_finite.max_grad_norm cannot be skipped under train.precision fp16, whose loss scaling decides "
            "what is skipped: use bf16 or fp32, or policy stop"
        )


@dataclass
class TrainState:
    """What is trained.

    Attributes:
        nets: name -> network (`g`, `d`, `wd` and perhaps `dur`), wrapped for DDP where there are
            several workers.
        slm: WavLM, frozen, no part of a checkpoint.
        optimizers: one AdamW a network.
        scalers: one gradient scaler a network; they do something under fp16 only.
        trainable: the parameters of each network that are not frozen.
        base_rates: learning rates at step 0 of networks that have one of their own, from published
            weights.
        reduction: how gradients are summed.
        position: global steps done.
        passed_over: steps among these whose data the weights have not seen, because of roll-backs.
        validations: those so far.
        averaged: the generator's averaged weights, with train.ema_decay.
        model: its configuration.
        train: its configuration.
    """

    nets: dict[str, nn.Module]
    slm: WavLMFeatures
    model: ModelConfig
    train: TrainConfig
    position: Position = field(default_factory=Position)
    passed_over: Spans = ()
    validations: tuple[Validation, ...] = ()
    averaged: AveragedWeights | None = field(init=False)
    optimizers: dict[str, torch.optim.Optimizer] = field(init=False)
    scalers: dict[str, torch.amp.GradScaler] = field(init=False)
    trainable: dict[str, list[nn.Parameter]] = field(init=False)
    base_rates: dict[str, float] = field(default_factory=dict)
    reduction: Reduction = field(init=False)

    def __post_init__(self) -> None:
        train, device = self.train, next(unwrapped(self.nets["g"]).parameters()).device
        own = {name: unwrapped(net) for name, net in self.nets.items()}
        self.trainable = {
            name: [p for p in net.parameters() if p.requires_grad] for name, net in own.items()
        }
        self.optimizers = {name: build_optimizer(net, train) for name, net in own.items()}
        self.averaged = AveragedWeights(own["g"], train.ema_decay) if train.ema_decay else None
        fp16 = train.precision == "fp16"
        self.scalers = {name: torch.amp.GradScaler(device.type, enabled=fp16) for name in self.nets}
        G = train.micro_batches_per_step
        self.reduction = (
            ExactReduction(G, self.nets) if train.reduction == "exact" else FastReduction(G)
        )
        for net in self.nets.values():
            net.train()

    def prepare_step(self) -> None:
        """Set what changes with the step: learning rates and the noise of the alignment search."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(name)
        scale = alignment_noise(self.model, self.position.step)
        unwrapped(self.nets["g"]).current_mas_noise_scale = scale  # type: ignore[assignment]

    def learning_rate(self, name: str) -> float:
        """The learning rate of a network's next step."""
        own = getattr(self.train.learning_rates, name)
        return learning_rate(
            self.train, self.position, self.base_rates.get(name) if own is None else own
        )

    def loss_tags(self) -> list[str]:
        """Tags of the losses that a step reports."""
        tags = ["loss/g/total", "loss/d/total", "loss/wd/total"]
        tags += [f"loss/g/{term}" for term in ("fm", "mel", "dur", "kl", "lm", "lm_gen")]
        tags += [f"loss/{part}/{i}" for part in ("g", "d_r", "d_g") for i in range(PERIODS)]
        if "dur" in self.nets:
            tags += ["loss/dur_disc/total", "loss/g/dur_gen"]
            parts = (
                2 if self.train.duration_discriminator_loss == "corrected" else LOGGED_ITEMS
            )  # predictors, utterances
            per_item = ("loss/dur_disc_r/", "loss/dur_disc_g/", "loss/g/dur_gen_")
            tags += [f"{part}{i}" for part in per_item for i in range(parts)]
        return tags

    def digest(self) -> str:
        """sha256 of all parameters: equal on all workers, or something is wrong."""
        digest = hashlib.sha256()
        for name in sorted(self.nets):
            for tensor in unwrapped(self.nets[name]).state_dict().values():
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Mapping]:
        """Optimizers, learning rates, scalers, the reduction's exponents; the networks' weights are saved beside."""
        return {
            "moments": {
                name: moments(unwrapped(self.nets[name]), o) for name, o in self.optimizers.items()
            },
            "learning_rates": {name: self.learning_rate(name) for name in self.nets},
            "base_rates": self.base_rates,
            "scalers": {name: s.state_dict() for name, s in self.scalers.items()},
            "reduction": self.reduction.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Mapping]) -> None:
        """Restore what `state_dict` gave."""
        for name, optimizer in self.optimizers.items():
            load_moments(unwrapped(self.nets[name]), optimizer, state["moments"][name])
        for name, scaler in self.scalers.items():
            # empty where the checkpoint is of another precision
            if of_fp16 := state["scalers"][name]:
                scaler.load_state_dict(of_fp16)
        self.base_rates = dict(state["base_rates"])
        self.reduction.load_state_dict(state["reduction"])
