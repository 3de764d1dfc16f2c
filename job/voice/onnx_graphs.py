"""The generator's inference as two ONNX graphs, checked against torch: docs/synthesis.md shows how to run them.

How much noise the sound takes follows from the durations, which are drawn. So they are a graph of
their own, `text`, whose user draws the noise of `decoder`. All randomness is among the inputs:
equal inputs give equal audio.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainable.networks.generator.synthesizer import Prior, SynthesizerTrn
from trainable.networks.layers.weight_norm import fixed_weights

# between torch and onnxruntime, of samples in (-1, 1), of frames and of the prior's statistics
TOLERANCE = 1e-4
CHECKED = (8, 45)  # tokens of the texts that are compared
EXAMPLE = 13  # tokens of the text that is traced
TEXT = {  # inputs -> their axes that vary; of one utterance
    "x": {1: "tokens"},
    "tone": {1: "tokens"},
    "language": {1: "tokens"},
    "bert": {2: "tokens"},
    "ja_bert": {2: "tokens"},
    "en_bert": {2: "tokens"},
    "sid": {},
    "noise": {2: "tokens"},
    "noise_scale_w": {},
    "length_scale": {},
    "sdp_ratio": {},
}
PRIOR = {"w": {2: "tokens"}, "m_p": {2: "tokens"}, "logs_p": {2: "tokens"}, "g": {}}
DECODER = {**PRIOR, "noise": {2: "frames"}, "noise_scale": {}}


class TextGraph(nn.Module):
    """`SynthesizerTrn.plan` of one utterance without padding."""

    def __init__(self, g: SynthesizerTrn) -> None:
        super().__init__()
        self.g = g

    def forward(
        self,
        x: Tensor,
        tone: Tensor,
        language: Tensor,
        bert: Tensor,
        ja_bert: Tensor,
        en_bert: Tensor,
        sid: Tensor,
        noise: Tensor,
        noise_scale_w: Tensor,
        length_scale: Tensor,
        sdp_ratio: Tensor,
    ) -> Prior:
        """Int64 [1, T_x] x 3, [1, bert_channels, T_x] x 3, int64 [1], [1, 2, T_x], three scalars -> Prior."""
        x_lengths = torch.ones_like(x).sum(1)
        text = (x, x_lengths, sid, tone, language, bert, ja_bert, en_bert)
        return self.g.plan(*text, noise, noise_scale_w, length_scale, sdp_ratio)


class DecoderGraph(nn.Module):
    """`SynthesizerTrn.render` of one utterance."""

    def __init__(self, g: SynthesizerTrn) -> None:
        super().__init__()
        self.g = g

    def forward(
        self, w: Tensor, m_p: Tensor, logs_p: Tensor, g: Tensor, noise: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """Prior, [1, inter, T_y], a scalar -> [1, 1, T_y * hop]."""
        return self.g.render(Prior(w, m_p, logs_p, g), noise, noise_scale).o


@torch.no_grad()  # tracing is a third faster without gradients
def write_onnx(g: SynthesizerTrn, stem: str) -> None:
    """Write `<stem>.text.onnx` and `<stem>.decoder.onnx`.

    Args:
        g: in evaluation mode, on the CPU; its parameters need no gradient any more.
        stem: path without ending.

    Raises:
        ValueError: the packages are not there, or the voice has no speaker table.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--format onnx needs {' and '.join(missing)}: python -m pip install '.[onnx]'"
        )
    if g.n_speakers == 0:
        raise ValueError("--format onnx needs a voice with a speaker table: model.n_speakers is 0")
    text = example_text(g, EXAMPLE)
    sound = example_sound(TextGraph(g)(*text))
    with fixed_weights(g):
        _write(TextGraph(g), text, TEXT, tuple(PRIOR), f"{stem}.text.onnx")
        _write(DecoderGraph(g), sound, DECODER, ("audio",), f"{stem}.decoder.onnx")


def largest_difference(g: SynthesizerTrn, stem: str) -> float:
    """Run both graphs with onnxruntime on texts of other lengths than the traced one.

    Args:
        g: what was exported.
        stem: as of `write_onnx`.

    Returns:
        The largest absolute difference from torch of any output: see TOLERANCE.
    """
    import onnxruntime

    text_graph, decoder = (
        onnxruntime.InferenceSession(f"{stem}.{name}.onnx") for name in ("text", "decoder")
    )
    differences = []
    for tokens in CHECKED:
        text = example_text(g, tokens)
        prior = TextGraph(g)(*text)
        sound = example_sound(prior)
        pairs = [*zip(_run(text_graph, TEXT, text), prior, strict=True)]
        pairs += zip(_run(decoder, DECODER, sound), [DecoderGraph(g)(*sound)], strict=True)
        differences += [(ours - theirs).abs().max().item() for theirs, ours in pairs]
    return max(differences)


def example_text(g: SynthesizerTrn, tokens: int) -> tuple[Tensor, ...]:
    """Inputs of the text graph: a random text."""
    generator, encoder = torch.Generator().manual_seed(tokens), g.enc_p
    tables = (encoder.emb, encoder.tone_emb, encoder.language_emb)
    ids = [
        torch.randint(table.num_embeddings, (1, tokens), generator=generator) for table in tables
    ]
    width = encoder.bert_proj.in_channels
    features = [torch.randn(1, width, tokens, generator=generator) for _ in range(3)]
    noise = torch.randn(1, 2, tokens, generator=generator)
    return (
        *ids,
        *features,
        torch.tensor([g.n_speakers - 1]),
        noise,
        *map(torch.tensor, (0.8, 1.1, 0.5)),
    )


def example_sound(prior: Prior) -> tuple[Tensor, ...]:
    """Inputs of the decoder graph, for what the text graph gave."""
    shape = (1, prior.m_p.shape[1], int(prior.frames()))
    return (
        *prior,
        torch.randn(shape, generator=torch.Generator().manual_seed(0)),
        torch.tensor(0.6),
    )


def _write(
    graph: nn.Module,
    args: tuple[Tensor, ...],
    axes: dict[str, Any],
    outputs: Sequence[str],
    path: str,
) -> None:
    # it warns that torchvision is not there
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval().requires_grad_(False),
            args,
            path,
            dynamo=True,
            dynamic_shapes=axes,
            input_names=list(axes),
            output_names=list(outputs),
            external_data=False,
            verbose=False,
        )


def _run(session: Any, names: Iterable[str], args: Iterable[Tensor]) -> list[Tensor]:
    """Outputs of an onnxruntime session."""
    given = {name: value.numpy() for name, value in zip(names, args, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, given)]
