"""All that is trained and that a checkpoint holds: networks, optimizers, scalers, position."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from data.config import DataConfig
from data.plan.epoch_plan import Position
from trainable.compiling import compile_parts
from trainable.config import TrainConfig
from trainable.distributed.wrapping import unwrapped
from trainable.learning.ema import AveragedWeights
from trainable.learning.judgement import Spans, Validation
from trainable.learning.optimizer import (
    build_optimizer,
    freeze,
    learning_rate,
    load_moments,
    moments,
)
from trainable.learning.reduction import ExactReduction, FastReduction, Reduction
from trainable.model_config import ModelConfig
from trainable.networks.generator.decoder import decoder_of
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.networks.registry import (
    GENERATOR,
    Blueprint,
    imported,
    networks,
)
from trainable.networks.wavlm import WavLMFeatures

# what autocast computes in, by train.precision; None: it is off
AUTOCAST_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_networks(
    model: ModelConfig, train: TrainConfig, data: DataConfig, slm: WavLMFeatures
) -> dict[str, nn.Module]:
    """Return the networks that are trained, by name, in the order of their declarations.

    Their initial weights depend on train.seed alone.

    Raises:
        ValueError: sizes that do not fit each other, with the key to change.
    """
    check_sizes(model, train, data)
    blueprint = Blueprint(model, train, data, slm)
    # once, for all: each network draws on from where the one before it stopped
    torch.manual_seed(train.seed)
    nets: dict[str, nn.Module] = {
        declared.name: imported(declared.build)(blueprint)
        for declared in networks()
        if declared.wanted(model)
    }
    freeze(nets, train.freeze)
    # parts that can trade time for memory say so by having this attribute
    for module in (module for net in nets.values() for module in net.modules()):
        if hasattr(module, "recompute"):
            module.recompute = train.activation_checkpointing  # type: ignore[assignment]
    return nets


def check_sizes(model: ModelConfig, train: TrainConfig, data: DataConfig) -> None:
    """Refuse settings that do not fit each other.

    Raises:
        ValueError: names the keys.
    """
    decoder = decoder_of(model)
    samples = decoder.samples_per_frame(model)
    if samples != data.hop_length:
        raise ValueError(
            f"the decoder makes {samples} samples per frame ({decoder.sized_by}), "
            f"but data.hop_length is {data.hop_length}: make them equal"
        )
    if train.segment_size % data.hop_length:
        raise ValueError(
            f"train.segment_size {train.segment_size} must be a multiple of "
            f"data.hop_length {data.hop_length}"
        )
    check_arithmetic(model, train)


def check_arithmetic(model: ModelConfig, train: TrainConfig) -> None:
    """Refuse a reduction, a precision and a policy that do not fit each other.

    Raises:
        ValueError: names the keys.
    """
    exact = train.reduction == "exact"
    fp16 = train.precision == "fp16"
    skips_large = train.not_finite.policy == "skip" and train.not_finite.max_grad_norm is not None
    if exact and model.use_spectral_norm:
        raise ValueError(
            "train.reduction exact is not possible with model.use_spectral_norm: its buffers "
            "change with every forward pass, so the result would depend on the number of workers; "
            "use train.reduction fast"
        )
    if exact and train.compile != "off":
        raise ValueError(
            f"train.reduction exact is not possible with train.compile {train.compile}: compiled "
            "code may sum in another order for another number of utterances, and when it is "
            "compiled again; set train.compile off, or use train.reduction fast"
        )
    if exact and fp16:
        raise ValueError(
            "train.reduction exact needs train.precision fp32 or bf16: fp16's loss scaling skips "
            "steps"
        )
    if exact and train.ddp_gradients != "fp32":
        raise ValueError(
            f"train.ddp_gradients {train.ddp_gradients} needs train.reduction fast: exact sums "
            "have 32 bits of each gradient"
        )
    if fp16 and skips_large:
        raise ValueError(
            "train.not_finite.max_grad_norm cannot be skipped under train.precision fp16, whose "
            "loss scaling decides what is skipped: use bf16 or fp32, or policy stop"
        )


@dataclass
class Unused:
    """What a checkpoint holds that this start does not train, to be saved again untouched.

    So a discriminator that is switched off, or a parameter that is frozen, goes on where it was
    when it is trained again.

    Attributes:
        weights: network -> tensors, of networks that are not there.
        training: what the rest of the state says of them, and of frozen parameters.
    """

    weights: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainState:
    """What is trained.

    Making one prepares what it is given: the networks are put into training mode, and WavLM's
    weights are stored in the type that train.precision computes in, and with train.compile parts of
    the networks are compiled.

    Attributes:
        nets: name -> network, wrapped for DDP if there are several workers.
        slm: WavLM, frozen, in no checkpoint.
        model: sizes of the networks.
        train: hyper-parameters.
        position: global steps done.
        passed_over: steps among these whose data the weights have not seen, because of roll-backs.
        validations: validations so far.
        averaged: the generator's averaged weights, with train.ema_decay.
        optimizers: name of each network -> AdamW.
        scalers: name of each network -> gradient scaler; they do something under fp16 only.
        trainable: name of each network -> parameters that are not frozen.
        base_rates: name -> learning rate at step 0, of networks that took one over from published
            weights.
        reduction: how gradients are summed.
        unused: what the checkpoint holds beside that.
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
    unused: Unused = field(default_factory=Unused)

    def __post_init__(self) -> None:
        train = self.train
        if train.precision not in AUTOCAST_TYPES:
            known = ", ".join(AUTOCAST_TYPES)
            raise ValueError(
                f"train.precision is {train.precision}, which job.train decides by its workers' "
                f"GPUs: give {known} here"
            )
        bare = {name: unwrapped(net) for name, net in self.nets.items()}
        generator = bare[GENERATOR]
        device = next(generator.parameters()).device
        fp16 = train.precision == "fp16"
        G = train.micro_batches_per_step
        exact = train.reduction == "exact"

        # frozen parameters are unknown to optimizers, norms and the reduction
        self.trainable = {
            name: [p for p in net.parameters() if p.requires_grad] for name, net in bare.items()
        }
        self.optimizers = {name: build_optimizer(net, train) for name, net in bare.items()}
        self.scalers = {name: torch.amp.GradScaler(device.type, enabled=fp16) for name in bare}
        self.averaged = AveragedWeights(generator, train.ema_decay) if train.ema_decay else None
        self.reduction = (
            ExactReduction(G, self.nets, train.ddp_bucket_mb) if exact else FastReduction(G)
        )
        for net in self.nets.values():
            net.train()
        self.slm.store_as(AUTOCAST_TYPES[train.precision])
        if train.compile == "parts":
            compile_parts(bare)

    def prepare_step(self) -> None:
        """Set what changes with the step: learning rates and what the alignment search adds."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(name)
        generator: SynthesizerTrn = unwrapped(self.nets[GENERATOR])  # type: ignore[assignment]
        generator.search.anneal(self.position.step)

    def learning_rate(self, name: str) -> float:
        """Return the learning rate of a network's next step."""
        own = self.train.learning_rates.of(name)
        base = self.base_rates.get(name) if own is None else own
        return learning_rate(self.train, self.position, base)

    def digest(self) -> str:
        """Return the sha256 of all weights: equal on all workers, or something is wrong."""
        digest = hashlib.sha256()
        for name in sorted(self.nets):
            for tensor in unwrapped(self.nets[name]).state_dict().values():
                content = tensor.detach().cpu().contiguous().view(torch.uint8)
                digest.update(content.numpy())
        return digest.hexdigest()

    def state_dict(self) -> dict[str, Mapping]:
        """Return all that a checkpoint holds beside the networks' weights and the position."""
        return merged(self.unused.training, self._own_state_dict())

    def _own_state_dict(self) -> dict[str, Mapping]:
        return {
            "moments": {
                name: moments(unwrapped(self.nets[name]), optimizer)
                for name, optimizer in self.optimizers.items()
            },
            "learning_rates": {name: self.learning_rate(name) for name in self.nets},
            "base_rates": self.base_rates,
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "reduction": {},  # where versions before the present one kept scales
        }

    def load_state_dict(self, state: Mapping[str, Mapping]) -> None:
        """Restore what `state_dict` returned."""
        for name, optimizer in self.optimizers.items():
            load_moments(unwrapped(self.nets[name]), optimizer, state["moments"][name])
        for name, scaler in self.scalers.items():
            # empty in a checkpoint of another precision
            if of_fp16 := state["scalers"][name]:
                scaler.load_state_dict(of_fp16)
        self.base_rates = dict(state["base_rates"])
        self.unused.training = {**beside(state, self._own_state_dict()), "reduction": {}}


def beside(saved: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `saved` holds beside `own`, at any depth: under keys that `own` lacks."""
    found: dict[str, Any] = {}
    for key, value in saved.items():
        if key not in own:
            found[key] = value
        elif isinstance(value, Mapping) and (rest := beside(value, own[key])):
            found[key] = rest
    return found


def merged(saved: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return `own` with what `saved` holds beside it, at any depth."""
    found = dict(own)
    for key, value in saved.items():
        if key not in own:
            found[key] = value
        elif isinstance(value, Mapping):
            found[key] = merged(value, own[key])
    return found
