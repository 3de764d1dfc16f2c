"""The generator network of Bert-VITS2 2.3: text to speech, and what training needs of it.

Names as in VITS: x text, y linear spectrogram, z latent frames of the posterior, z_p the same
through the flow, m_p and logs_p the prior's statistics, m_q and logs_q the posterior's, w durations
in frames, logw their logarithm, g speaker; T_x tokens, T_y frames.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.precision import widen
from trainable.networks.generator.alignment import maximum_path
from trainable.networks.generator.decoder import Generator
from trainable.networks.generator.duration import DurationPredictor, StochasticDurationPredictor
from trainable.networks.generator.flows import ResidualCouplingBlock, TransformerCouplingBlock
from trainable.networks.generator.posterior_encoder import PosteriorEncoder
from trainable.networks.generator.reference_encoder import ReferenceEncoder
from trainable.networks.generator.text_encoder import TextEncoder
from trainable.networks.layers.segments import generate_path, rand_slice_segments, sequence_mask


class SynthesizerOutput(NamedTuple):
    """What `SynthesizerTrn.forward` returns; T_s is the segment in frames."""

    o: Tensor  # [B, 1, T_s * hop] generated segment
    l_length: Tensor  # [B] duration loss, nats a token (its normaliser is the batch's tokens)
    attn: Tensor  # [B, 1, T_y, T_x] alignment, 0 or 1
    ids_slice: Tensor  # [B] int64 first frame of the segment
    x_mask: Tensor  # [B, 1, T_x]
    y_mask: Tensor  # [B, 1, T_y]
    z: Tensor  # [B, inter, T_y]
    z_p: Tensor  # [B, inter, T_y]
    m_p: Tensor  # [B, inter, T_y] laid out over the frames
    logs_p: Tensor  # [B, inter, T_y] laid out over the frames
    m_q: Tensor  # [B, inter, T_y]
    logs_q: Tensor  # [B, inter, T_y]
    hidden_x: Tensor  # [B, hidden, T_x] encoded text
    logw: Tensor  # [B, 1, T_x] of the duration predictor
    logw_: Tensor  # [B, 1, T_x] of the alignment
    logw_sdp: Tensor  # [B, 1, T_x] drawn from the stochastic duration predictor
    g: Tensor  # [B, gin, 1] speaker


class Prior(NamedTuple):
    """What `SynthesizerTrn.plan` returns: all that the sound depends on but its noise."""

    w: Tensor  # [B, 1, T_x] durations, whole numbers of frames, 0 in the padding
    m_p: Tensor  # [B, inter, T_x]
    logs_p: Tensor  # [B, inter, T_x]
    g: Tensor  # [B, gin, 1] speaker

    def frames(self) -> Tensor:
        """[B] int64 frames of each item, at least one."""
        return self.w.sum([1, 2]).clamp_min(1).to(torch.long)

    def limited(self, frames: int) -> "Prior":
        """The same without what comes after so many frames; durations that are not finite count as 0 or as all."""
        ends = (
            self.w.nan_to_num(nan=0.0, posinf=frames).clamp(max=frames).cumsum(-1).clamp(max=frames)
        )
        return self._replace(w=ends.diff(dim=-1, prepend=torch.zeros_like(ends[..., :1])))


class InferenceOutput(NamedTuple):
    """What `SynthesizerTrn.infer` returns."""

    o: Tensor  # [B, 1, T_y * hop] waveform
    attn: Tensor  # [B, 1, T_y, T_x]
    y_mask: Tensor  # [B, 1, T_y]
    z: Tensor  # [B, inter, T_y]
    z_p: Tensor  # [B, inter, T_y]
    m_p: Tensor  # [B, inter, T_y]
    logs_p: Tensor  # [B, inter, T_y]


class SynthesizerTrn(nn.Module):
    """VITS2 with BERT features, for any number of speakers.

    Args:
        n_vocab: number of symbols.
        spec_channels: bins of the linear spectrogram.
        segment_size: length of the decoded segment in training, in frames.
        inter_channels: channels of z, even.
        hidden_channels: width of the encoders.
        filter_channels: width inside the transformers' position-wise networks.
        n_heads: attention heads.
        n_layers: layers of the text encoder.
        kernel_size: of the text encoder's position-wise networks.
        p_dropout: dropout of the transformers.
        resblock: residual blocks of the decoder, "1" or "2".
        resblock_kernel_sizes: see `Generator`, as the next four.
        resblock_dilation_sizes: dilations of the residual blocks.
        upsample_rates: factors of the decoder's stages.
        upsample_initial_channel: channels before the first stage.
        upsample_kernel_sizes: kernel sizes of the stages.
        n_speakers: size of the speaker table; 0 reads the speaker off the spectrogram instead.
        gin_channels: channels of the speaker.
        n_flow_layer: couplings of the transformer flow, or layers in each of the four couplings of
            the residual flow.
        n_layers_trans_flow: layers of a transformer in the flow.
        use_transformer_flow: the flow of VITS2 instead of that of VITS.
        flow_share_parameter: one transformer for all couplings.
        use_spk_conditioned_encoder: the speaker in the text encoder, as in VITS2.
        use_noise_scaled_mas: noise on the alignment scores, as in VITS2.
        mas_noise_scale_initial: its first scale, relative to the scores' standard deviation.
        noise_scale_delta: what the trainer takes off the scale each step.
        bert_channels: width of the BERT features.
        num_tones: tones of all languages together.
        num_languages: languages.

    Attributes:
        current_mas_noise_scale: the scale in use, a plain number that the trainer sets before each
            step.
    """

    def __init__(
        self,
        n_vocab: int,
        spec_channels: int,
        segment_size: int,
        inter_channels: int,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        p_dropout: float,
        resblock: str,
        resblock_kernel_sizes: Sequence[int],
        resblock_dilation_sizes: Sequence[Sequence[int]],
        upsample_rates: Sequence[int],
        upsample_initial_channel: int,
        upsample_kernel_sizes: Sequence[int],
        n_speakers: int = 256,
        gin_channels: int = 256,
        n_flow_layer: int = 4,
        n_layers_trans_flow: int = 4,
        use_transformer_flow: bool = True,
        flow_share_parameter: bool = False,
        use_spk_conditioned_encoder: bool = True,
        use_noise_scaled_mas: bool = True,
        mas_noise_scale_initial: float = 0.01,
        noise_scale_delta: float = 2e-6,
        *,
        bert_channels: int = 1024,
        num_tones: int = 12,
        num_languages: int = 3,
    ) -> None:
        super().__init__()
        if gin_channels <= 0:
            raise ValueError(
                f"gin_channels must be > 0, got {gin_channels}: the speaker conditions every part"
                + (
                    ", the text encoder too (use_spk_conditioned_encoder)"
                    if use_spk_conditioned_encoder
                    else ""
                )
            )
        if use_transformer_flow and n_layers_trans_flow < 3:
            raise ValueError(f"n_layers_trans_flow must be at least 3, got {n_layers_trans_flow}")
        self.segment_size = segment_size
        self.n_speakers = n_speakers
        self.use_noise_scaled_mas = use_noise_scaled_mas
        self.mas_noise_scale_initial = mas_noise_scale_initial
        self.noise_scale_delta = noise_scale_delta
        self.current_mas_noise_scale = mas_noise_scale_initial
        self.enc_p = TextEncoder(
            n_vocab,
            inter_channels,
            *(hidden_channels, filter_channels, n_heads, n_layers, kernel_size, p_dropout),
            gin_channels=gin_channels if use_spk_conditioned_encoder else 0,
            bert_channels=bert_channels,
            num_tones=num_tones,
            num_languages=num_languages,
        )
        self.dec = Generator(
            inter_channels,
            *(resblock, resblock_kernel_sizes, resblock_dilation_sizes),
            *(upsample_rates, upsample_initial_channel, upsample_kernel_sizes),
            gin_channels=gin_channels,
        )
        self.enc_q = PosteriorEncoder(
            spec_channels, inter_channels, hidden_channels, 5, 1, 16, gin_channels
        )
        self.flow: TransformerCouplingBlock | ResidualCouplingBlock
        if use_transformer_flow:
            widths = (inter_channels, hidden_channels, filter_channels, n_heads)
            self.flow = TransformerCouplingBlock(
                *widths,
                n_layers_trans_flow,
                5,
                p_dropout,
                n_flow_layer,
                gin_channels,
                flow_share_parameter,
            )
        else:
            self.flow = ResidualCouplingBlock(
                inter_channels, hidden_channels, 5, 1, n_flow_layer, gin_channels=gin_channels
            )
        self.sdp = StochasticDurationPredictor(
            hidden_channels, 192, 3, 0.5, n_flows=4, gin_channels=gin_channels
        )
        self.dp = DurationPredictor(hidden_channels, 256, 3, 0.5, gin_channels=gin_channels)
        if n_speakers > 0:
            self.emb_g = nn.Embedding(n_speakers, gin_channels)
        else:
            self.ref_enc = ReferenceEncoder(spec_channels, gin_channels)

    def speaker(self, sid: Tensor | None, y: Tensor | None) -> Tensor:
        """The speaker vector: from the table by sid [B], or, without a table, from y [B, spec, T_y].

        Returns:
            g [B, gin, 1].
        """
        if self.n_speakers > 0:
            return self.emb_g(sid).unsqueeze(-1)
        if y is None:
            raise ValueError("y (a reference spectrogram) is needed by a model with n_speakers 0")
        return self.ref_enc(y.transpose(1, 2)).unsqueeze(-1)

    @torch.no_grad()
    def _align(
        self, z_p: Tensor, m_p: Tensor, logs_p: Tensor, x_mask: Tensor, y_mask: Tensor
    ) -> Tensor:
        """Monotonic alignment search (VITS section 2.2.1), with VITS2's noise.

        In at least fp32, under autocast too.

        Args:
            z_p: [B, inter, T_y].
            m_p: [B, inter, T_x].
            logs_p: [B, inter, T_x].
            x_mask: [B, 1, T_x].
            y_mask: [B, 1, T_y].

        Returns:
            attn [B, 1, T_y, T_x].
        """
        with torch.autocast(z_p.device.type, enabled=False):
            z_p, m_p, logs_p = widen(z_p), widen(m_p), widen(logs_p)
            precision = torch.exp(-2 * logs_p)
            # log N(z_p; m_p, exp(logs_p)) of each frame and token, the square multiplied out
            constant = torch.sum(
                -0.5 * math.log(2 * math.pi) - logs_p - 0.5 * m_p.square() * precision, 1
            )
            neg_cent = torch.matmul(-0.5 * z_p.square().transpose(1, 2), precision)
            neg_cent = (
                neg_cent
                + torch.matmul(z_p.transpose(1, 2), m_p * precision)
                + constant.unsqueeze(1)
            )
            if self.use_noise_scaled_mas:
                noise = (
                    torch.std(neg_cent) * torch.randn_like(neg_cent) * self.current_mas_noise_scale
                )
                neg_cent = neg_cent + noise
        return maximum_path(neg_cent, y_mask.transpose(1, 2) * x_mask).unsqueeze(1)

    def _durations(
        self, hidden_x: Tensor, x_mask: Tensor, attn: Tensor, g: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both duration predictors on the durations that the alignment found.

        Returns:
            Their loss l_length [B]: the bound of the stochastic one and the squared errors of both
            in logw, each over the batch's tokens. Then logw, logw_ and logw_sdp, [B, 1, T_x].
        """
        w = attn.sum(2)  # [B, 1, T_x]
        logw_ = torch.log(w + 1e-6) * x_mask
        bound = self.sdp(hidden_x, x_mask, w, g=g)
        logw = self.dp(hidden_x, x_mask, g=g)
        logw_sdp = self.sdp(hidden_x, x_mask, g=g, reverse=True, noise_scale=1.0)
        errors = torch.sum((logw - logw_).square() + (logw_sdp - logw_).square(), [1, 2])
        return (bound + errors) / x_mask.sum(), logw, logw_, logw_sdp

    def forward(
        self,
        x: Tensor,
        x_lengths: Tensor,
        y: Tensor,
        y_lengths: Tensor,
        sid: Tensor,
        tone: Tensor,
        language: Tensor,
        bert: Tensor,
        ja_bert: Tensor,
        en_bert: Tensor,
    ) -> SynthesizerOutput:
        """Encodes, aligns, and decodes a random segment.

        Args:
            x: [B, T_x] int64 symbols.
            x_lengths: [B] int64 tokens.
            y: [B, spec, T_y] linear spectrogram.
            y_lengths: [B] int64 frames.
            sid: [B] int64 speakers.
            tone: [B, T_x] int64.
            language: [B, T_x] int64.
            bert: [B, bert_channels, T_x] features, zero for other languages; ja_bert, en_bert
                alike.
            ja_bert: Japanese.
            en_bert: English.

        Returns:
            See `SynthesizerOutput`.
        """
        g = self.speaker(sid, y)
        hidden_x, m_p, logs_p, x_mask = self.enc_p(
            x, x_lengths, tone, language, bert, ja_bert, en_bert, g=g
        )
        z, m_q, logs_q, y_mask = self.enc_q(y, y_lengths, g=g)
        z_p = self.flow(z, y_mask, g=g)
        attn = self._align(z_p, m_p, logs_p, x_mask, y_mask)

        l_length, logw, logw_, logw_sdp = self._durations(hidden_x, x_mask, attn, g)
        m_p, logs_p = _lay_out(attn, m_p), _lay_out(attn, logs_p)
        z_slice, ids_slice = rand_slice_segments(z, y_lengths, self.segment_size)
        o = self.dec(z_slice, g=g)
        return SynthesizerOutput(
            o=o,
            l_length=l_length,
            attn=attn,
            ids_slice=ids_slice,
            x_mask=x_mask,
            y_mask=y_mask,
            z=z,
            z_p=z_p,
            m_p=m_p,
            logs_p=logs_p,
            m_q=m_q,
            logs_q=logs_q,
            hidden_x=hidden_x,
            logw=logw,
            logw_=logw_,
            logw_sdp=logw_sdp,
            g=g,
        )

    @torch.no_grad()
    def plan(
        self,
        x: Tensor,
        x_lengths: Tensor,
        sid: Tensor | None,
        tone: Tensor,
        language: Tensor,
        bert: Tensor,
        ja_bert: Tensor,
        en_bert: Tensor,
        noise: Tensor | None = None,
        noise_scale_w: float | Tensor = 0.8,
        length_scale: float | Tensor = 1.0,
        sdp_ratio: float | Tensor = 0.0,
        y: Tensor | None = None,
    ) -> Prior:
        """First half of `infer`: how long each token is, and what it sounds like.

        Args:
            x: [B, T_x] int64 symbols; as the next seven, see `infer`.
            x_lengths: [B] int64 tokens.
            sid: [B] int64 speakers; None with n_speakers 0.
            tone: [B, T_x] int64.
            language: [B, T_x] int64.
            bert: [B, bert_channels, T_x].
            ja_bert: [B, bert_channels, T_x].
            en_bert: [B, bert_channels, T_x].
            noise: [B, 2, T_x] standard normal, for the stochastic duration predictor; None draws
                it.
            noise_scale_w: its standard deviation; this and the next two are numbers or [B, 1, 1].
            length_scale: factor on all durations.
            sdp_ratio: share of the stochastic duration predictor in logw; the rest is the other's.
            y: [B, spec, T_y] reference spectrogram, with n_speakers 0 only.
        """
        g = self.speaker(sid, y)
        hidden_x, m_p, logs_p, x_mask = self.enc_p(
            x, x_lengths, tone, language, bert, ja_bert, en_bert, g=g
        )
        logw_sdp = self.sdp(
            hidden_x, x_mask, g=g, reverse=True, noise_scale=noise_scale_w, noise=noise
        )
        logw = logw_sdp * sdp_ratio + self.dp(hidden_x, x_mask, g=g) * (1 - sdp_ratio)
        return Prior(torch.ceil(torch.exp(logw) * x_mask * length_scale), m_p, logs_p, g)

    @torch.no_grad()
    def render(
        self,
        prior: Prior,
        noise: Tensor | None = None,
        noise_scale: float | Tensor = 0.667,
        max_len: int | None = None,
        apart: bool = False,
    ) -> InferenceOutput:
        """Second half of `infer`: the sound.

        Args:
            prior: of `plan`.
            noise: [B, inter, T_y] standard normal, T_y the most frames of any item; None draws it,
                and waits for the device to know T_y.
            noise_scale: its standard deviation, a number or [B, 1, 1].
            max_len: longest output in frames; None for no limit.
            apart: decode each item as if it were alone. Otherwise the decoder hears the padding
                behind an item's end, as the reference trainer's does, and the last 0.2 s of the
                shorter items depend on it.
        """
        w, m_p, logs_p, g = prior
        y_mask = (
            sequence_mask(prior.frames(), None if noise is None else noise.size(2))
            .unsqueeze(1)
            .to(m_p.dtype)
        )
        attn = generate_path(w, y_mask.unsqueeze(-1))
        m_p, logs_p = _lay_out(attn, m_p), _lay_out(attn, logs_p)
        z_p = (
            m_p
            + (torch.randn_like(m_p) if noise is None else noise) * torch.exp(logs_p) * noise_scale
        )
        z = self.flow(z_p, y_mask, g=g, reverse=True)
        o = self.dec(
            (z * y_mask)[:, :, :max_len], g=g, mask=y_mask[:, :, :max_len] if apart else None
        )
        return InferenceOutput(o=o, attn=attn, y_mask=y_mask, z=z, z_p=z_p, m_p=m_p, logs_p=logs_p)

    def infer(
        self,
        x: Tensor,
        x_lengths: Tensor,
        sid: Tensor | None,
        tone: Tensor,
        language: Tensor,
        bert: Tensor,
        ja_bert: Tensor,
        en_bert: Tensor,
        noise_scale: float = 0.667,
        length_scale: float = 1.0,
        noise_scale_w: float = 0.8,
        max_len: int | None = None,
        sdp_ratio: float = 0.0,
        y: Tensor | None = None,
    ) -> InferenceOutput:
        """Speaks, with noise drawn from torch's global generator.

        Args:
            x: [B, T_x] int64 symbols.
            x_lengths: [B] int64 tokens.
            sid: [B] int64 speakers; None with n_speakers 0.
            tone: [B, T_x] int64.
            language: [B, T_x] int64.
            bert: [B, bert_channels, T_x] features, zero for other languages; ja_bert, en_bert
                alike.
            ja_bert: Japanese.
            en_bert: English.
            noise_scale: standard deviation of the prior's noise.
            length_scale: factor on all durations.
            noise_scale_w: standard deviation of the stochastic duration predictor's noise.
            max_len: longest output in frames; None for no limit.
            sdp_ratio: share of the stochastic duration predictor in logw; the rest is the other's.
            y: [B, spec, T_y] reference spectrogram, with n_speakers 0 only.

        Returns:
            See `InferenceOutput`; with max_len only o is shortened.
        """
        text = (x, x_lengths, sid, tone, language, bert, ja_bert, en_bert)
        prior = self.plan(
            *text, noise_scale_w=noise_scale_w, length_scale=length_scale, sdp_ratio=sdp_ratio, y=y
        )
        return self.render(prior, noise_scale=noise_scale, max_len=max_len)


def _lay_out(attn: Tensor, statistics: Tensor) -> Tensor:
    """[B, 1, T_y, T_x], [B, C, T_x] -> [B, C, T_y]: each frame gets its token's statistics.

    In at least fp32.
    """
    # a product, not a gather: its backward pass adds up in a fixed order
    with torch.autocast(attn.device.type, enabled=False):
        return torch.matmul(widen(statistics), attn.squeeze(1).transpose(1, 2))
