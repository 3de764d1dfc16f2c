"""The generator that a configuration asks for, for training and for synthesis."""

from functools import partial

from data.config import DataConfig
from data.text.symbols import symbols
from trainable.model_config import ModelConfig
from trainable.networks.generator.alignment import AlignmentSearch
from trainable.networks.generator.decoder import build_decoder
from trainable.networks.generator.flows import ResidualCouplingBlock, TransformerCouplingBlock
from trainable.networks.generator.synthesizer import SynthesizerTrn
from trainable.networks.registry import Blueprint

# sizes that no published configuration changes
FLOW_KERNEL = 5
RESIDUAL_DILATION = 1
RESIDUAL_FLOWS = 4


def build(blueprint: Blueprint) -> SynthesizerTrn:
    """Build the generator for a training."""
    return build_generator(blueprint.model, blueprint.train.segment_size, blueprint.data)


def build_generator(model: ModelConfig, segment_size: int, data: DataConfig) -> SynthesizerTrn:
    """Build the generator alone, with initial weights from torch's random state."""
    languages = data.bert.languages()
    return SynthesizerTrn(
        n_vocab=len(symbols(languages)),
        spec_channels=data.filter_length // 2 + 1,
        segment_size=segment_size // data.hop_length,
        inter_channels=model.inter_channels,
        hidden_channels=model.hidden_channels,
        filter_channels=model.filter_channels,
        n_heads=model.n_heads,
        n_layers=model.n_layers,
        kernel_size=model.kernel_size,
        p_dropout=model.p_dropout,
        make_decoder=partial(build_decoder, model),
        make_flow=partial(build_flow, model),
        search=search_of(model),
        n_speakers=model.n_speakers,
        gin_channels=model.gin_channels,
        use_spk_conditioned_encoder=model.use_spk_conditioned_encoder,
        bert_channels=model.bert_channels,
        languages=languages,
    )


def build_flow(model: ModelConfig) -> TransformerCouplingBlock | ResidualCouplingBlock:
    """Make the flow that a configuration asks for: that of VITS2, or of VITS.

    Raises:
        ValueError: sizes that do not fit each other; names the keys.
    """
    if model.use_transformer_flow:
        return TransformerCouplingBlock(
            model.inter_channels,
            model.hidden_channels,
            model.filter_channels,
            model.n_heads,
            model.n_layers_trans_flow,
            FLOW_KERNEL,
            model.p_dropout,
            model.n_flow_layer,
            model.gin_channels,
        )
    return ResidualCouplingBlock(
        model.inter_channels,
        model.hidden_channels,
        FLOW_KERNEL,
        RESIDUAL_DILATION,
        model.n_flow_layer,  # layers of a stack, as in the reference
        RESIDUAL_FLOWS,
        model.gin_channels,
    )


def search_of(model: ModelConfig) -> AlignmentSearch:
    """Return the alignment search that a configuration asks for."""
    return AlignmentSearch(
        model.use_noise_scaled_mas,
        model.mas_noise_scale_initial,
        model.noise_scale_delta,
        model.alignment_prior,
        model.alignment_prior_steps,
    )
