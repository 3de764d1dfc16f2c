"""The contract between the data and the generator: what the networks read of a batch of texts."""

from dataclasses import dataclass

from torch import Tensor


# eq=False: tensors have no truth value, so that batches are compared by identity
@dataclass(frozen=True, kw_only=True, eq=False)
class TextInputs:
    """A batch of B texts of at most T_x phones, blanks included, and who speaks them.

    Attributes:
        x: phone ids, int64 [B, T_x].
        x_lengths: phones of each text, int64 [B].
        tone: tone ids, int64 [B, T_x].
        language: language ids, int64 [B, T_x].
        bert: features of each language's BERT model per phone, one float [B, bert_channels, T_x]
            per language in the order of `data.config.BertConfig.languages`.
        sid: rows of the speaker table, int64 [B]; None for networks without one.
        tokens: phones of the longest text, where T_x is padded beyond it; None: T_x.
    """

    x: Tensor
    x_lengths: Tensor
    tone: Tensor
    language: Tensor
    bert: tuple[Tensor, ...]
    sid: Tensor | None = None
    tokens: int | None = None
