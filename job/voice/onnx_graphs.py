"""The generator's inference as two ONNX graphs, checked against torch.

docs/synthesis.md shows how to run them. How much noise the sound takes follows from the durations,
which are drawn. So they are a graph of their own, `text`, whose user draws the noise of `decoder`.
All randomness is among the inputs: equal inputs give equal audio.
"""

import importlib.util
import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from data.stream.inputs import TextInputs
from trainable.networks.generator.synthesizer import Prior, SynthesizerTrn
from trainable.networks.layers.weight_norm import fixed_weights

# largest difference between torch and onnxruntime: samples in (-1, 1), frames, prior's statistics
TOLERANCE = 1e-4
CHECKED = (8, 45)  # tokens of the texts that are compared
EXAMPLE = 13  # tokens of the text that is traced
# inputs of the decoder graph -> their axes that vary; for one utterance
PRIOR = {"w": {2: "tokens"}, "m_p": {2: "tokens"}, "logs_p": {2: "tokens"}, "g": {}}
DECODER = {**PRIOR, "noise": {2: "frames"}, "noise_scale": {}}


def text_axes(g: SynthesizerTrn) -> dict[str, Any]:
    """Return inputs of the text graph -> their axes that vary; `bert` has one per language."""
    tokens = {1: "tokens"}
    return {
        "x": tokens,
        "tone": tokens,
        "language": tokens,
        "bert": ({2: "tokens"},) * len(g.enc_p.languages),
        "sid": {},
        "noise": {2: "tokens"},
        "noise_scale_w": {},
        "length_scale": {},
        "sdp_ratio": {},
    }


def text_names(g: SynthesizerTrn) -> list[str]:
    """Return the names of the text graph's inputs; features are called as their projections are."""
    features = [language.feature_name for language in g.enc_p.languages]
    axes = text_axes(g)
    return [name for key in axes for name in (features if key == "bert" else [key])]


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
        bert: tuple[Tensor, ...],
        sid: Tensor,
        noise: Tensor,
        noise_scale_w: Tensor,
        length_scale: Tensor,
        sdp_ratio: Tensor,
    ) -> Prior:
        """Plan, from plain tensors as ONNX knows them.

        Args:
            x: int64 [1, T_x], as the next two.
            tone: see `TextInputs`.
            language: see `TextInputs`.
            bert: [1, bert_channels, T_x] per language.
            sid: int64 [1].
            noise: [1, 2, T_x] standard normal.
            noise_scale_w: scalar, as the next two; see `SynthesizerTrn.plan`.
            length_scale: factor on all durations.
            sdp_ratio: share of the stochastic duration predictor.
        """
        x_lengths = torch.ones_like(x).sum(1)
        text = TextInputs(
            x=x, x_lengths=x_lengths, tone=tone, language=language, bert=bert, sid=sid
        )
        return self.g.plan(text, noise, noise_scale_w, length_scale, sdp_ratio)


class DecoderGraph(nn.Module):
    """`SynthesizerTrn.render` of one utterance."""

    def __init__(self, g: SynthesizerTrn) -> None:
        super().__init__()
        self.g = g

    def forward(
        self, w: Tensor, m_p: Tensor, logs_p: Tensor, g: Tensor, noise: Tensor, noise_scale: Tensor
    ) -> Tensor:
        """Return the waveform, [1, 1, T_y * hop].

        Args:
            w: durations in frames; this and the next three make up the prior.
            m_p: means.
            logs_p: logarithms of the standard deviations.
            g: vector of the speaker.
            noise: standard normal, [1, inter, T_y].
            noise_scale: scalar.
        """
        return self.g.render(Prior(w, m_p, logs_p, g), noise, noise_scale).o


@torch.no_grad()  # tracing is a third faster without gradients
def write_onnx(g: SynthesizerTrn, stem: str) -> None:
    """Write `<stem>.text.onnx` and `<stem>.decoder.onnx`.

    Args:
        g: generator in evaluation mode, on the CPU; its parameters need no gradient any more.
        stem: path without suffix.

    Raises:
        ValueError: packages are not installed, or the voice has no speaker table.
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
        names = text_names(g)
        _write(TextGraph(g), text, text_axes(g), names, tuple(PRIOR), f"{stem}.text.onnx")
        names = list(DECODER)
        _write(DecoderGraph(g), sound, DECODER, names, ("audio",), f"{stem}.decoder.onnx")


def largest_difference(g: SynthesizerTrn, stem: str) -> float:
    """Run both graphs with onnxruntime on texts of other lengths than the traced one.

    Args:
        g: generator that was exported.
        stem: path of the graphs without suffix.

    Returns:
        The largest absolute difference of any output from torch's: see TOLERANCE.
    """
    import onnxruntime

    text_graph = onnxruntime.InferenceSession(f"{stem}.text.onnx")
    decoder = onnxruntime.InferenceSession(f"{stem}.decoder.onnx")
    differences = []
    for tokens in CHECKED:
        text = example_text(g, tokens)
        prior = TextGraph(g)(*text)
        sound = example_sound(prior)
        expected = [*prior, DecoderGraph(g)(*sound)]
        found = [*_run(text_graph, text_names(g), text), *_run(decoder, DECODER, sound)]
        differences += [
            (ours - theirs).abs().max().item() for ours, theirs in zip(expected, found, strict=True)
        ]
    return max(differences)


def example_text(g: SynthesizerTrn, tokens: int) -> tuple[Any, ...]:
    """Return inputs of the text graph: a random text.

    Args:
        g: generator whose tables the text is for.
        tokens: phones and blanks.
    """
    generator = torch.Generator().manual_seed(tokens)
    encoder = g.enc_p
    tables = (encoder.emb, encoder.tone_emb, encoder.language_emb)
    ids = [
        torch.randint(table.num_embeddings, (1, tokens), generator=generator) for table in tables
    ]
    shape = (1, encoder.bert_channels, tokens)
    features = tuple(torch.randn(shape, generator=generator) for _ in encoder.languages)
    noise = torch.randn(1, 2, tokens, generator=generator)
    scales = map(torch.tensor, (0.8, 1.1, 0.5))
    return (*ids, features, torch.tensor([g.n_speakers - 1]), noise, *scales)


def example_sound(prior: Prior) -> tuple[Tensor, ...]:
    """Return inputs of the decoder graph, for an output of the text graph."""
    shape = (1, prior.m_p.shape[1], int(prior.frames()))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (*prior, noise, torch.tensor(0.6))


def _write(
    graph: nn.Module,
    args: tuple[Any, ...],
    axes: dict[str, Any],
    names: Sequence[str],
    outputs: Sequence[str],
    path: str,
) -> None:
    # it warns that torchvision is not installed
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval().requires_grad_(False),
            args,
            path,
            dynamo=True,
            dynamic_shapes=axes,
            input_names=list(names),
            output_names=list(outputs),
            external_data=False,
            verbose=False,
        )


def _run(session: Any, names: Iterable[str], args: Iterable[Any]) -> list[Tensor]:
    """Return the outputs of an onnxruntime session; an argument may be a tuple of inputs."""
    tensors: list[Tensor] = []
    for arg in args:
        tensors += arg if isinstance(arg, tuple) else (arg,)
    given = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, given)]
