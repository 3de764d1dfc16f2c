"""Text encoder: phones, tones, language and BERT features to the prior's statistics."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from data.stream.inputs import TextInputs
from data.text.languages import PUBLISHED, Language, count_tones
from trainable.networks.layers.attentions import Encoder
from trainable.networks.layers.segments import sequence_mask


class TextEncoder(nn.Module):
    """Prior encoder of VITS (section 2.2), with tones, languages and a BERT projection for each.

    Args:
        n_vocab: number of symbols.
        out_channels: channels of the latent variable z.
        hidden_channels: width of the encoder.
        filter_channels: width inside the position-wise networks.
        n_heads: attention heads.
        n_layers: transformer layers, at least 3 with a speaker.
        kernel_size: kernel of the position-wise networks.
        p_dropout: probability of dropout.
        gin_channels: channels of the speaker; 0 leaves it out.
        bert_channels: width of the BERT features.
        languages: languages in the order of their numbers.
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
        languages: Sequence[Language] = PUBLISHED,
    ) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        self.bert_channels = bert_channels
        self.languages = tuple(languages)
        self.emb = nn.Embedding(n_vocab, hidden_channels)
        self.tone_emb = nn.Embedding(count_tones(languages), hidden_channels)
        self.language_emb = nn.Embedding(len(languages), hidden_channels)
        for embedding in (self.emb, self.tone_emb, self.language_emb):
            nn.init.normal_(embedding.weight, 0.0, hidden_channels**-0.5)
        for language in languages:
            self.add_module(language.projection, nn.Conv1d(bert_channels, hidden_channels, 1))
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
        self, text: TextInputs, g: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode the text.

        Args:
            text: T_x phones and the features of this network's languages.
            g: [B, gin, 1] speaker, or None.

        Returns:
            Hidden text [B, hidden, T_x], the prior's mean m_p and log scale logs_p [B, out, T_x],
            x_mask [B, 1, T_x].
        """
        embedded = self.emb(text.x) + self.tone_emb(text.tone) + self.language_emb(text.language)
        embedded = embedded.transpose(1, 2)
        hidden = (embedded + self._project(text.bert)) * math.sqrt(self.hidden_channels)
        x_mask = sequence_mask(text.x_lengths, text.x.size(1)).unsqueeze(1).to(embedded.dtype)
        hidden = self.encoder(hidden, x_mask, g)
        m_p, logs_p = (self.proj(hidden) * x_mask).chunk(2, dim=1)
        return hidden, m_p, logs_p, x_mask

    def _project(self, bert: Sequence[Tensor]) -> Tensor:
        """Sum the projected features of all languages, [B, bert_channels, T_x] each."""
        projected = [
            self.get_submodule(language.projection)(features)
            for language, features in zip(self.languages, bert, strict=True)
        ]
        # added in the order of the table, on which the last bits depend
        total = projected[0]
        for other in projected[1:]:
            total = total + other
        return total
