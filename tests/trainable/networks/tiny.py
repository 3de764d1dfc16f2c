"""Tiny networks and batches."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from data.stream.inputs import TextInputs
from data.text.languages import PUBLISHED
from trainable.networks.generator.alignment import AlignmentSearch
from trainable.networks.generator.build import FLOW_KERNEL, RESIDUAL_DILATION, RESIDUAL_FLOWS
from trainable.networks.generator.decoder import Generator
from trainable.networks.generator.flows import ResidualCouplingBlock, TransformerCouplingBlock
from trainable.networks.generator.synthesizer import SynthesizerTrn

SPEC, SEGMENT, HOP, GIN, HIDDEN, SYMBOL_COUNT = 33, 4, 8, 6, 8, 20

SIZES: dict[str, Any] = {
    "n_vocab": SYMBOL_COUNT,
    "spec_channels": SPEC,
    "segment_size": SEGMENT,
    "inter_channels": 4,
    "hidden_channels": HIDDEN,
    "filter_channels": 12,
    "n_heads": 2,
    "n_layers": 3,
    "kernel_size": 3,
    "p_dropout": 0.1,
    "n_speakers": 3,
    "gin_channels": GIN,
    "n_flow_layer": 2,
    "n_layers_trans_flow": 3,
    "bert_channels": 5,
}
DECODER: dict[str, Any] = {
    "resblock": "1",
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 3]],
    "upsample_rates": [4, 2],
    "upsample_initial_channel": 8,
    "upsample_kernel_sizes": [8, 4],
}

# changes of SIZES and DECODER, each a kind of model that can be trained
VARIANTS: dict[str, dict[str, Any]] = {
    "vits2": {},
    "residual_flow": {"use_transformer_flow": False},
    "plain_mas": {"use_noise_scaled_mas": False},
    "speakerless_text_encoder": {"use_spk_conditioned_encoder": False},
    "shared_flow": {"flow_share_parameter": True},
    "resblock_2": {"resblock": "2"},
    "reference_encoder": {"n_speakers": 0},
}


def synthesizer(variant: str = "vits2", **changes: Any) -> SynthesizerTrn:
    torch.manual_seed(0)
    return with_hifigan(**{**SIZES, **DECODER, **VARIANTS[variant], **changes})


def with_hifigan(*sizes: Any, **named: Any) -> SynthesizerTrn:
    """A generator from the reference's arguments, among which are those of its parts."""
    inter_channels, gin_channels = named["inter_channels"], named["gin_channels"]
    hifigan = partial(
        Generator,
        inter_channels,
        **{name: named.pop(name) for name in DECODER},
        gin_channels=gin_channels,
    )
    n_flow_layer = named.pop("n_flow_layer", 4)
    n_layers_trans_flow = named.pop("n_layers_trans_flow", 4)
    share_parameter = named.pop("flow_share_parameter", False)
    vits2 = partial(
        TransformerCouplingBlock,
        inter_channels,
        *(named[name] for name in ("hidden_channels", "filter_channels", "n_heads")),
        n_layers_trans_flow,
        FLOW_KERNEL,
        named["p_dropout"],
        n_flow_layer,
        gin_channels,
        share_parameter,
    )
    vits = partial(
        ResidualCouplingBlock,
        inter_channels,
        named["hidden_channels"],
        FLOW_KERNEL,
        RESIDUAL_DILATION,
        n_flow_layer,
        RESIDUAL_FLOWS,
        gin_channels,
    )
    search = AlignmentSearch(
        named.pop("use_noise_scaled_mas", True),
        named.pop("mas_noise_scale_initial", 0.01),
        named.pop("noise_scale_delta", 2e-6),
    )
    make_flow = vits2 if named.pop("use_transformer_flow", True) else vits
    return SynthesizerTrn(*sizes, **named, make_decoder=hifigan, make_flow=make_flow, search=search)


def text(batch: int = 2, tokens: int = 7) -> TextInputs:
    """Texts of three speakers; the last one is one token short."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.full((batch,), tokens)
    lengths[-1] -= 1
    ids = {
        "x": torch.randint(1, SYMBOL_COUNT, (batch, tokens), generator=generator),
        "tone": torch.randint(0, 4, (batch, tokens), generator=generator),
        "language": torch.randint(0, 2, (batch, tokens), generator=generator),
    }
    bert = tuple(torch.randn(batch, 5, tokens, generator=generator) for _ in PUBLISHED)
    return TextInputs(**ids, bert=bert, x_lengths=lengths, sid=torch.arange(batch) % 3)


def item(text: TextInputs, i: int, tokens: int) -> TextInputs:
    """One of the texts alone, cut after its tokens."""
    return TextInputs(
        x=text.x[i : i + 1, :tokens],
        x_lengths=text.x_lengths[i : i + 1],
        tone=text.tone[i : i + 1, :tokens],
        language=text.language[i : i + 1, :tokens],
        bert=tuple(features[i : i + 1, :, :tokens] for features in text.bert),
        sid=None if text.sid is None else text.sid[i : i + 1],
    )


def speech(batch: int = 2, frames: int = 20) -> dict[str, Tensor]:
    """Spectrograms; the last item is three frames short."""
    lengths = torch.full((batch,), frames)
    lengths[-1] -= 3
    y = torch.rand(batch, SPEC, frames, generator=torch.Generator().manual_seed(2))
    return {"y": y * (torch.arange(frames) < lengths[:, None])[:, None], "y_lengths": lengths}


def randomise(net: nn.Module, scale: float = 0.3) -> None:
    """Moves zero-initialised weights away from zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def without_gradient(net: nn.Module) -> set[str]:
    """Names of the parameters that have no gradient, or nothing but zeros."""
    return {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
