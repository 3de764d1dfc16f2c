"""Configuration of the networks: their sizes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from data.settings.declared import Amount, Count, Hertz, Range, Settings, Size, Text

Counts = Annotated[tuple[Count, ...], Size(1)]


@dataclass(frozen=True)
class SlmConfig(Settings, section="model.slm"):
    """The speech language model behind the WavLM discriminator.

    Attributes:
        path: a folder or a hub name of a WavLM, or `random` (a tiny random model made on the spot).
        revision: hub revision of `path`.
        sampling_rate: sampling rate that the WavLM was trained on, in Hz.
        initial_channel: channels of the discriminator's first layer; the others follow from the
            WavLM.
    """

    path: Text = "microsoft/wavlm-base-plus"
    revision: Text | None = None
    sampling_rate: Hertz = 16000
    initial_channel: Count = 64


@dataclass(frozen=True)
class VocosConfig(Settings, section="model.vocos"):
    """The decoder of Vocos (`model.decoder: vocos`).

    Attributes:
        channels: width of its blocks.
        layers: number of its blocks.
        fft_size: points of its inverse STFT, a multiple of twice the hop; four hops are usual.
        hop_length: samples that it makes of a frame, which must be data.hop_length.
    """

    channels: Count = 512
    layers: Count = 8
    fft_size: Annotated[int, Range(4)] = 2048
    hop_length: Count = 512

    def problems(self) -> Iterator[str]:
        """Yield sizes that do not fit each other."""
        if self.fft_size % (2 * self.hop_length):
            yield (
                f"model.vocos.fft_size is {self.fft_size}: give a multiple of twice "
                f"model.vocos.hop_length, {2 * self.hop_length}"
            )


@dataclass(frozen=True)
class ModelConfig(Settings, section="model"):
    """Sizes of Bert-VITS2 2.3's networks; the defaults are its own.

    Attributes:
        n_speakers: rows of the speaker table; 0: the reference encoder replaces the table.
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
        decoder: kind of the decoder from z to a waveform: `hifigan`, whose keys are the next six;
            `vocos`, a light one for small voices and CPUs, whose keys are in model.vocos; or one
            that trainable/networks/generator/decoder.py lists beside them.
        resblock: residual block of the decoder.
        resblock_kernel_sizes: kernels of the decoder's residual blocks.
        resblock_dilation_sizes: dilations of each of these blocks.
        upsample_rates: up-sampling of the decoder's stages; their product is data.hop_length.
        upsample_initial_channel: channels that the decoder starts from.
        upsample_kernel_sizes: kernels of the up-sampling layers.
        use_transformer_flow: transformer coupling (VITS2) or residual coupling (VITS).
        use_spk_conditioned_encoder: condition the text encoder on the speaker (VITS2).
        use_noise_scaled_mas: noise in the alignment search (VITS2).
        mas_noise_scale_initial: scale of that noise at step 0.
        noise_scale_delta: decrease of that scale per step.
        alignment_prior: weight of a band along the diagonal in the alignment search at step 0,
            beside the likelihood: from random weights, a voice finds which phone a frame belongs to
            sooner. 0 as in the reference trainer; 4 suits a small voice (docs/small-voice.md).
        alignment_prior_steps: steps over which that weight falls to 0.
        use_duration_discriminator: train with the duration discriminator (VITS2).
        use_spectral_norm: spectral instead of weight normalisation in the multi-period
            discriminator; never in that on WavLM, as in the reference.
        discriminator_width_divisor: divides the channels of the multi-period discriminator (1, 2,
            4, 8, 16).
        bert_channels: width of the BERT features.
        vocos: the decoder `vocos`.
        slm: the speech language model.
    """

    n_speakers: Annotated[int, Range(0)] = 850
    gin_channels: Count = 512
    inter_channels: Annotated[int, Range(2)] = 192
    hidden_channels: Count = 192
    filter_channels: Count = 768
    n_heads: Count = 2
    n_layers: Annotated[int, Range(3)] = 6
    n_layers_trans_flow: Annotated[int, Range(3)] = 4
    n_flow_layer: Count = 4
    kernel_size: Count = 3
    p_dropout: Annotated[float, Range(0, below=1)] = 0.1
    decoder: Text = "hifigan"
    resblock: Literal["1", "2"] = "1"
    resblock_kernel_sizes: Counts = (3, 7, 11)
    resblock_dilation_sizes: Annotated[tuple[Counts, ...], Size(1)] = (
        (1, 3, 5),
        (1, 3, 5),
        (1, 3, 5),
    )
    upsample_rates: Counts = (8, 8, 2, 2, 2)
    upsample_initial_channel: Count = 512
    upsample_kernel_sizes: Counts = (16, 16, 8, 2, 2)
    use_transformer_flow: bool = True
    use_spk_conditioned_encoder: bool = True
    use_noise_scaled_mas: bool = True
    mas_noise_scale_initial: Amount = 0.01
    noise_scale_delta: Amount = 2e-6
    alignment_prior: Amount = 0.0
    alignment_prior_steps: Count = 1000
    use_duration_discriminator: bool = True
    use_spectral_norm: bool = False
    discriminator_width_divisor: Literal[1, 2, 4, 8, 16] = 1
    bert_channels: Count = 1024
    vocos: VocosConfig = field(default_factory=VocosConfig)
    slm: SlmConfig = field(default_factory=SlmConfig)

    def problems(self) -> Iterator[str]:
        """Yield sizes that do not fit each other."""
        if self.inter_channels % 2:
            yield f"model.inter_channels is {self.inter_channels}: the flow needs an even number"
        if self.hidden_channels % self.n_heads:
            yield (
                f"model.n_heads is {self.n_heads}: it must divide model.hidden_channels "
                f"{self.hidden_channels}"
            )
        if self.n_speakers == 0 and self.use_spk_conditioned_encoder:
            yield (
                "model.use_spk_conditioned_encoder needs a speaker table: set model.n_speakers to "
                "the number of speakers, or turn it off to train without one (the voice is then "
                "taken from the recording itself)"
            )
        yield from self._problems_of_the_residual_blocks()
        yield from self._problems_of_the_up_sampling()

    def _problems_of_the_residual_blocks(self) -> Iterator[str]:
        kernels = self.resblock_kernel_sizes
        dilations = self.resblock_dilation_sizes
        if len(kernels) != len(dilations):
            yield (
                f"model.resblock_dilation_sizes has {len(dilations)} lists: give one for each of "
                f"the {len(kernels)} model.resblock_kernel_sizes"
            )
        if even := [kernel for kernel in kernels if kernel % 2 == 0]:
            yield f"model.resblock_kernel_sizes has {even[0]}: give odd numbers"

    def _problems_of_the_up_sampling(self) -> Iterator[str]:
        rates = self.upsample_rates
        kernels = self.upsample_kernel_sizes
        if len(rates) != len(kernels):
            yield (
                f"model.upsample_kernel_sizes has {len(kernels)} numbers: give one for each of "
                f"the {len(rates)} model.upsample_rates"
            )
            return
        for rate, kernel in zip(rates, kernels, strict=True):
            if kernel < rate or (kernel - rate) % 2:
                yield (
                    f"model.upsample_kernel_sizes has {kernel} for the rate {rate}: give the rate "
                    "plus an even number"
                )
        if self.upsample_initial_channel < 2 ** len(rates):
            yield (
                f"model.upsample_initial_channel is {self.upsample_initial_channel}: give "
                f"{2 ** len(rates)} or more, as each of the {len(rates)} model.upsample_rates "
                "halves it"
            )
