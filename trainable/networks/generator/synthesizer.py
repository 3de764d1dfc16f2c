"""The generator network of Bert-VITS2 2.3: text to speech, and what training needs of it.

Names as in VITS: x text, y linear spectrogram, z latent frames of the posterior, z_p the same
through the flow, m_p and logs_p the prior's statistics, m_q and logs_q the posterior's, w durations
in frames, logw their logarithm, g speaker; T_x tokens, T_y frames.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data.stream.inputs import TextInputs
from data.text.languages import PUBLISHED, Language
from trainable.networks.generator.alignment import AlignmentSearch, lay_out
from trainable.networks.generator.duration import DurationPredictor, StochasticDurationPredictor
from trainable.networks.generator.posterior_encoder import PosteriorEncoder
from trainable.networks.generator.reference_encoder import ReferenceEncoder
from trainable.networks.generator.text_encoder import TextEncoder
from trainable.networks.layers.segments import generate_path, rand_slice_segments, sequence_mask
from trainable.networks.layers.weight_norm import joined_weights

# sizes that no published configuration changes
POSTERIOR: dict[str, Any] = {"kernel_size": 5, "dilation_rate": 1, "n_layers": 16}
STOCHASTIC: dict[str, Any] = {
    "filter_channels": 192,
    "kernel_size": 3,
    "p_dropout": 0.5,
    "n_flows": 4,
}
DETERMINISTIC: dict[str, Any] = {"filter_channels": 256, "kernel_size": 3, "p_dropout": 0.5}


class SynthesizerOutput(NamedTuple):
    """What `SynthesizerTrn.forward` returns; T_s is the segment in frames."""

    o: Tensor  # [B, 1, T_s * hop] generated segment
    l_length: Tensor  # [B] duration loss, nats per token (its normaliser is the batch's tokens)
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
        """Return the frames of each item, at least one: int64 [B]."""
        return self.w.sum([1, 2]).clamp_min(1).to(torch.long)

    def limited(self, frames: int) -> "Prior":
        """Return the same without what comes after so many frames.

        Durations that are NaN count as 0, infinite ones as all that is left.
        """
        w = self.w.nan_to_num(nan=0.0, posinf=frames).clamp(max=frames)
        ends = w.cumsum(-1).clamp(max=frames)
        start = torch.zeros_like(ends[..., :1])
        return self._replace(w=ends.diff(dim=-1, prepend=start))


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
        kernel_size: kernel of the text encoder's position-wise networks.
        p_dropout: probability of dropout in the transformers.
        make_decoder: makes the decoder, see `trainable.networks.generator.decoder.Decoder`; called
            once, between the other parts, so that initial weights follow from the seed alone.
        make_flow: makes the flow between the posterior and the prior, see
            `trainable.networks.generator.flows`; called once, likewise.
        search: searches the alignments of a training.
        n_speakers: size of the speaker table; 0 reads the speaker off the spectrogram instead.
        gin_channels: channels of the speaker.
        use_spk_conditioned_encoder: whether the text encoder is conditioned on the speaker (VITS2).
        bert_channels: width of the BERT features.
        languages: languages in the order of their numbers.
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
        make_decoder: Callable[[], nn.Module],
        make_flow: Callable[[], nn.Module],
        search: AlignmentSearch,
        n_speakers: int = 256,
        gin_channels: int = 256,
        use_spk_conditioned_encoder: bool = True,
        *,
        bert_channels: int = 1024,
        languages: Sequence[Language] = PUBLISHED,
    ) -> None:
        super().__init__()
        _check_speaker(gin_channels, use_spk_conditioned_encoder)
        self.segment_size = segment_size
        self.n_speakers = n_speakers
        self.search = search

        # in this order: initial weights are drawn one after the other
        self.enc_p = TextEncoder(
            n_vocab,
            inter_channels,
            hidden_channels,
            filter_channels,
            n_heads,
            n_layers,
            kernel_size,
            p_dropout,
            gin_channels=gin_channels if use_spk_conditioned_encoder else 0,
            bert_channels=bert_channels,
            languages=languages,
        )
        self.dec = make_decoder()
        self.enc_q = PosteriorEncoder(
            spec_channels, inter_channels, hidden_channels, **POSTERIOR, gin_channels=gin_channels
        )
        self.flow = make_flow()
        self.sdp = StochasticDurationPredictor(
            hidden_channels, **STOCHASTIC, gin_channels=gin_channels
        )
        self.dp = DurationPredictor(hidden_channels, **DETERMINISTIC, gin_channels=gin_channels)
        if n_speakers > 0:
            self.emb_g = nn.Embedding(n_speakers, gin_channels)
        else:
            self.ref_enc = ReferenceEncoder(spec_channels, gin_channels)

    def speaker(self, sid: Tensor | None, y: Tensor | None) -> Tensor:
        """Return the speaker vector g [B, gin, 1].

        Args:
            sid: [B] int64 rows of the speaker table; not used without one.
            y: [B, spec, T_y] linear spectrogram, read where there is no table.

        Raises:
            ValueError: there is neither a table nor y.
        """
        if self.n_speakers > 0:
            return self.emb_g(sid).unsqueeze(-1)
        if y is None:
            raise ValueError("y (a reference spectrogram) is needed by a model with n_speakers 0")
        return self.ref_enc(y.transpose(1, 2)).unsqueeze(-1)

    def _durations(
        self, hidden_x: Tensor, x_mask: Tensor, attn: Tensor, g: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score both duration predictors on the durations that the alignment found.

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
        self, text: TextInputs, y: Tensor, y_lengths: Tensor, frames: int | None = None
    ) -> SynthesizerOutput:
        """Encode, align, and decode a random segment.

        Args:
            text: texts of B utterances.
            y: [B, spec, T_y] linear spectrogram.
            y_lengths: [B] int64 frames.
            frames: frames of the longest utterance, where T_y is padded beyond it; None: T_y.

        Returns:
            See `SynthesizerOutput`.
        """
        with joined_weights(self):
            return self._forward(text, y, y_lengths, frames)

    def _forward(
        self, text: TextInputs, y: Tensor, y_lengths: Tensor, frames: int | None
    ) -> SynthesizerOutput:
        # the reference encoder reads the padding too, up to the longest utterance
        g = self.speaker(text.sid, y[:, :, :frames])
        hidden_x, m_p, logs_p, x_mask = self.enc_p(text, g=g)
        z, m_q, logs_q, y_mask = self.enc_q(y, y_lengths, g=g)
        z_p = self.flow(z, y_mask, g=g)
        attn = self.search.align(z_p, m_p, logs_p, x_mask, y_mask, frames, text.tokens)

        l_length, logw, logw_, logw_sdp = self._durations(hidden_x, x_mask, attn, g)
        m_p = lay_out(attn, m_p)
        logs_p = lay_out(attn, logs_p)
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
        text: TextInputs,
        noise: Tensor | None = None,
        noise_scale_w: float | Tensor = 0.8,
        length_scale: float | Tensor = 1.0,
        sdp_ratio: float | Tensor = 0.0,
        y: Tensor | None = None,
    ) -> Prior:
        """Decide how long each token is and what it sounds like: the first half of `infer`.

        Args:
            text: what is spoken, and by whom.
            noise: [B, 2, T_x] standard normal, for the stochastic duration predictor; None draws
                it.
            noise_scale_w: standard deviation of that noise; this and the next two are numbers or
                [B, 1, 1].
            length_scale: factor on all durations.
            sdp_ratio: share of the stochastic duration predictor in logw; the rest is the other's.
            y: [B, spec, T_y] reference spectrogram, with n_speakers 0 only.
        """
        g = self.speaker(text.sid, y)
        hidden_x, m_p, logs_p, x_mask = self.enc_p(text, g=g)
        logw_sdp = self.sdp(
            hidden_x, x_mask, g=g, reverse=True, noise_scale=noise_scale_w, noise=noise
        )
        logw = logw_sdp * sdp_ratio + self.dp(hidden_x, x_mask, g=g) * (1 - sdp_ratio)
        w = torch.ceil(torch.exp(logw) * x_mask * length_scale)
        return Prior(w, m_p, logs_p, g)

    @torch.no_grad()
    def render(
        self,
        prior: Prior,
        noise: Tensor | None = None,
        noise_scale: float | Tensor = 0.667,
        max_len: int | None = None,
        apart: bool = False,
    ) -> InferenceOutput:
        """Make the sound: the second half of `infer`.

        Args:
            prior: result of `plan`.
            noise: [B, inter, T_y] standard normal, T_y the most frames of any item; None draws it,
                and waits for the device to know T_y.
            noise_scale: standard deviation of the noise, a number or [B, 1, 1].
            max_len: longest output in frames; None for no limit.
            apart: whether each item is decoded as if it were alone. Otherwise the decoder hears the
                padding behind an item's end, as the reference trainer's does, and the last 0.2 s of
                the shorter items depend on it.
        """
        w, m_p, logs_p, g = prior
        longest = None if noise is None else noise.size(2)
        y_mask = sequence_mask(prior.frames(), longest).unsqueeze(1).to(m_p.dtype)
        attn = generate_path(w, y_mask.unsqueeze(-1))
        m_p = lay_out(attn, m_p)
        logs_p = lay_out(attn, logs_p)
        if noise is None:
            noise = torch.randn_like(m_p)
        z_p = m_p + noise * torch.exp(logs_p) * noise_scale

        z = self.flow(z_p, y_mask, g=g, reverse=True)
        mask = y_mask[:, :, :max_len] if apart else None
        o = self.dec((z * y_mask)[:, :, :max_len], g=g, mask=mask)
        return InferenceOutput(o=o, attn=attn, y_mask=y_mask, z=z, z_p=z_p, m_p=m_p, logs_p=logs_p)

    def infer(
        self,
        text: TextInputs,
        noise_scale: float = 0.667,
        length_scale: float = 1.0,
        noise_scale_w: float = 0.8,
        max_len: int | None = None,
        sdp_ratio: float = 0.0,
        y: Tensor | None = None,
    ) -> InferenceOutput:
        """Speak, with noise drawn from torch's global generator.

        Args:
            text: what is spoken, and by whom.
            noise_scale: standard deviation of the prior's noise.
            length_scale: factor on all durations.
            noise_scale_w: standard deviation of the stochastic duration predictor's noise.
            max_len: longest output in frames; None for no limit.
            sdp_ratio: share of the stochastic duration predictor in logw; the rest is the other's.
            y: [B, spec, T_y] reference spectrogram, with n_speakers 0 only.

        Returns:
            See `InferenceOutput`; with max_len only o is shortened.
        """
        prior = self.plan(
            text, noise_scale_w=noise_scale_w, length_scale=length_scale, sdp_ratio=sdp_ratio, y=y
        )
        return self.render(prior, noise_scale=noise_scale, max_len=max_len)


def _check_speaker(gin_channels: int, use_spk_conditioned_encoder: bool) -> None:
    if gin_channels <= 0:
        encoder = ", the text encoder too (use_spk_conditioned_encoder)"
        raise ValueError(
            f"gin_channels must be > 0, got {gin_channels}: the speaker conditions every part"
            f"{encoder if use_spk_conditioned_encoder else ''}"
        )
