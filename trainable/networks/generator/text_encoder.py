"""Text encoder: phones, tones, language and BERT features to the prior's statistics."""

import math

from torch import Tensor, nn

from trainable.networks.layers.attentions import Encoder
from trainable.networks.layers.segments import sequence_mask


class TextEncoder(nn.Module):
    """Prior encoder of VITS (section 2.2) with tones, languages and one BERT projection a language.

    Args:
        n_vocab: number of symbols.
        out_channels: channels of the latent variable z.
        hidden_channels: width of the encoder.
        filter_channels: width inside the position-wise networks.
        n_heads: attention heads.
        n_layers: transformer layers, at least 3 with a speaker.
        kernel_size: of the position-wise networks.
        p_dropout: dropout.
        gin_channels: channels of the speaker; 0 leaves it out.
        bert_channels: width of the BERT features.
        num_tones: tones of all languages together.
        num_languages: languages.
    """

    def __init__(
        self,
        n_vocab: int,
        out_channels: int,
        hidden_channels: int,
        filter_channels: int,
        n_heads: int,
        n_layers: int,
        kernel_size: int,
        p_dropout: float,
        gin_channels: int = 0,
        *,
        bert_channels: int = 1024,
        num_tones: int = 12,
        num_languages: int = 3,
    ) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        self.emb = nn.Embedding(n_vocab, hidden_channels)
        self.tone_emb = nn.Embedding(num_tones, hidden_channels)
        self.language_emb = nn.Embedding(num_languages, hidden_channels)
        for embedding in (self.emb, self.tone_emb, self.language_emb):
            nn.init.normal_(embedding.weight, 0.0, hidden_channels**-0.5)
        self.bert_proj = nn.Conv1d(bert_channels, hidden_channels, 1)
        self.ja_bert_proj = nn.Conv1d(bert_channels, hidden_channels, 1)
        self.en_bert_proj = nn.Conv1d(bert_channels, hidden_channels, 1)
        self.encoder = Encoder(
            hidden_channels,
            filter_channels,
            n_heads,
            n_layers,
            kernel_size,
            p_dropout,
            gin_channels,
        )
        self.proj = nn.Conv1d(hidden_channels, 2 * out_channels, 1)

    def forward(
        self,
        x: Tensor,
        x_lengths: Tensor,
        tone: Tensor,
        language: Tensor,
        bert: Tensor,
        ja_bert: Tensor,
        en_bert: Tensor,
        g: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encodes the text.

        Args:
            x: [B, T_x] int64 symbols.
            x_lengths: [B] int64.
            tone: [B, T_x] int64.
            language: [B, T_x] int64.
            bert: [B, bert_channels, T_x] Chinese BERT features, zero for other languages.
            ja_bert: the same for Japanese.
            en_bert: the same for English.
            g: [B, gin, 1] speaker, or None.

        Returns:
            Hidden text [B, hidden, T_x], the prior's mean m_p and log scale logs_p [B, out, T_x],
            x_mask [B, 1, T_x].
        """
        embedded = (self.emb(x) + self.tone_emb(tone) + self.language_emb(language)).transpose(1, 2)
        features = self.bert_proj(bert) + self.ja_bert_proj(ja_bert) + self.en_bert_proj(en_bert)
        hidden = (embedded + features) * math.sqrt(self.hidden_channels)
        x_mask = sequence_mask(x_lengths, x.size(1)).unsqueeze(1).to(embedded.dtype)
        hidden = self.encoder(hidden, x_mask, g)
        m_p, logs_p = (self.proj(hidden) * x_mask).chunk(2, dim=1)
        return hidden, m_p, logs_p, x_mask
