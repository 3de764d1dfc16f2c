"""Scores of synthetic speech by networks whose weights the user gives: words, speakers, naturalness.

`eval.scorers` names them: a score's name -> `factory`, a function `module:name` that makes one, and
`path`, the weights that it is handed. The factories of this module load them with transformers or
as TorchScript; any other that can be imported will do. A TorchScript file and a factory of others'
are programs: they can do what the user can.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torchaudio.functional import edit_distance, resample

from data.config import LANGUAGES
from data.stream.loading import Utterance
from trainable.config import ScorerConfig

# of ours, and they run nothing that comes with the weights
WEIGHTS_ONLY = (
    "trainable.evaluation.scorers:errors_of_recognition",
    "trainable.evaluation.scorers:similarity_of_speakers",
)


class Scorer(Protocol):
    """Scores one synthesis."""

    def __call__(
        self, wave: np.ndarray, sampling_rate: int, utterance: Utterance, recording: np.ndarray
    ) -> float:
        """Score it.

        Args:
            wave: the synthesis, float32 [samples].
            sampling_rate: Hz, of both sounds.
            utterance: whose text it speaks.
            recording: of the same text, float32 [samples].
        """


def load_scorers(configs: Mapping[str, ScorerConfig], device: torch.device) -> dict[str, Scorer]:
    """Make the scorers of a configuration.

    Raises:
        ValueError: one cannot be made; names its key.
    """
    made = {}
    for name, cfg in configs.items():
        try:
            module, _, function = cfg.factory.partition(":")
            factory: Callable[[str, torch.device], Scorer] = getattr(
                importlib.import_module(module), function
            )
            made[name] = factory(cfg.path, device)
        except (ImportError, AttributeError, OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"eval.scorers.{name} ({cfg.factory}, {cfg.path}) cannot be made: {error}"
            ) from error
    return made


def errors_of_recognition(path: str, device: torch.device) -> Scorer:
    """Errors of a speech recogniser: of words in English, else of characters; 0 is none, 1 as many as the text has.

    Args:
        path: folder or hub name of a recogniser that transformers knows (Whisper, wav2vec 2.0,
            ...).
        device: where it runs.
    """
    from transformers import pipeline  # seconds of imports, for those who want it

    recognise = pipeline(
        "automatic-speech-recognition", model=path, device=device, trust_remote_code=False
    )
    multilingual = recognise.type == "seq2seq_whisper"
    codes = dict(zip(LANGUAGES, ("zh", "ja", "en"), strict=True))

    def score(
        wave: np.ndarray, sampling_rate: int, utterance: Utterance, recording: np.ndarray
    ) -> float:
        heard_with = (
            {"generate_kwargs": {"language": codes[utterance.language]}} if multilingual else {}
        )
        heard: Any = recognise({"raw": wave, "sampling_rate": sampling_rate}, **heard_with)
        said, understood = (
            units(text, utterance.language) for text in (utterance.text, heard["text"])
        )
        return edit_distance(said, understood) / max(len(said), 1)

    return score


def units(text: str, language: str) -> list[str]:
    """What recognition errors are counted in: words of an English text, characters of another; no punctuation."""
    words = re.sub(r"[^\w']+", " ", text.lower()).split()
    return words if language == "EN" else list("".join(words))


def similarity_of_speakers(path: str, device: torch.device) -> Scorer:
    """Cosine of the speaker embeddings of synthesis and recording, -1 to 1.

    Args:
        path: folder or hub name of a network for x-vectors that transformers knows (WavLM, wav2vec
            2.0, ...).
        device: where it runs.
    """
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    extractor = AutoFeatureExtractor.from_pretrained(path, trust_remote_code=False)
    net = AutoModelForAudioXVector.from_pretrained(path, trust_remote_code=False).eval().to(device)

    def embed(wave: np.ndarray, sampling_rate: int) -> torch.Tensor:
        heard = resample(torch.from_numpy(wave), sampling_rate, extractor.sampling_rate).numpy()
        features = extractor(heard, sampling_rate=extractor.sampling_rate, return_tensors="pt").to(
            device
        )
        return net(**features).embeddings[0]

    def score(
        wave: np.ndarray, sampling_rate: int, utterance: Utterance, recording: np.ndarray
    ) -> float:
        with torch.no_grad():
            a, b = (embed(sound, sampling_rate) for sound in (wave, recording))
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    return score


def torchscript(path: str, device: torch.device) -> Scorer:
    """What a TorchScript module says of a wave at 16 kHz [1, samples], such as a naturalness predictor (UTMOS).

    Args:
        path: a file of torch.jit.save.
        device: where it runs.
    """
    net = torch.jit.load(path, map_location=device).eval()

    def score(
        wave: np.ndarray, sampling_rate: int, utterance: Utterance, recording: np.ndarray
    ) -> float:
        heard = resample(torch.from_numpy(wave), sampling_rate, 16000).to(device)
        with torch.no_grad():
            return float(net(heard[None]).mean())

    return score
