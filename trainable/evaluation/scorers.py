"""Scores of synthetic speech by networks whose weights the user gives.

They tell of words, speakers, naturalness. `eval.scorers` names them: a score's name -> `factory`, a
function `module:name` that makes one, and `path`, the weights that it is handed. The factories of
this module load them with transformers or as TorchScript; any other that can be imported will do. A
TorchScript file and a factory of somebody else's are programs: they can do what the user can.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torchaudio.functional import edit_distance, resample

from data.stream.evaluation import EvaluationUtterance
from data.text.languages import LANGUAGES, units
from trainable.config import ScorerConfig

# Modules that have moved: their names stand in users' configurations and in checkpoints.
MOVED = {"trainable.scorers": "trainable.evaluation.scorers"}

# Factories of ours, under all their names, that run nothing that comes with the weights.
WEIGHTS_ONLY = tuple(
    f"{module}:{function}"
    for module in ("trainable.evaluation.scorers", "trainable.scorers")
    for function in ("errors_of_recognition", "sentence_recognised", "similarity_of_speakers")
)


class Scorer(Protocol):
    """Scores one synthesis."""

    def __call__(
        self,
        wave: np.ndarray,
        sampling_rate: int,
        utterance: EvaluationUtterance,
        recording: np.ndarray,
    ) -> float:
        """Score it.

        Args:
            wave: the synthesis, float32 [samples].
            sampling_rate: Hz, of both sounds.
            utterance: utterance whose text it speaks.
            recording: recording of the same text, float32 [samples].
        """


def load_scorers(configs: Mapping[str, ScorerConfig], device: torch.device) -> dict[str, Scorer]:
    """Make the scorers of a configuration.

    Raises:
        ValueError: one cannot be made; names its key.
    """
    made = {}
    for name, cfg in configs.items():
        try:
            made[name] = factory_of(cfg.factory)(cfg.path, device)
        except (ImportError, AttributeError, OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"eval.scorers.{name} ({cfg.factory}, {cfg.path}) cannot be made: {error}"
            ) from error
    return made


def factory_of(name: str) -> Callable[[str, torch.device], Scorer]:
    """Import a factory.

    Args:
        name: `module:function`; the module may have moved since the name was written.
    """
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(MOVED.get(module, module)), function)


def errors_of_recognition(path: str, device: torch.device) -> Scorer:
    """Make a scorer: a recogniser's errors per word or character, as the language counts them.

    0 is none, 1 as many as the text has.

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

    def score(
        wave: np.ndarray, sampling_rate: int, utterance: EvaluationUtterance, recording: np.ndarray
    ) -> float:
        language = utterance.language
        # others hear one language only, and refuse to be told
        hint = {"language": LANGUAGES[language].iso}
        settings = {"generate_kwargs": hint} if multilingual else {}
        heard: Any = recognise({"raw": wave, "sampling_rate": sampling_rate}, **settings)
        said = units(utterance.text, language)
        understood = units(heard["text"], language)
        return edit_distance(said, understood) / max(len(said), 1)

    return score


def sentence_recognised(path: str, device: torch.device) -> Scorer:
    """Make a scorer: whether a recogniser picks the sentence out of a list, 0 or 1.

    It needs no download: PocketSphinx (extra `recognition`), whose package ships a model of
    English, is given the sentences as its grammar.

    Args:
        path: text file of the sentences, one per line.
        device: not used; it runs on the CPU.

    Raises:
        ValueError: the recogniser's dictionary lacks a word of the list.
    """
    recogniser = ClosedSetRecogniser(Path(path).read_text(encoding="utf-8").splitlines())

    def score(
        wave: np.ndarray, sampling_rate: int, utterance: EvaluationUtterance, recording: np.ndarray
    ) -> float:
        return float(recogniser.hear(wave, sampling_rate) == recogniser.words(utterance.text))

    return score


class ClosedSetRecogniser:
    """Tells which of a few English sentences was said.

    Args:
        sentences: what may be said.

    Raises:
        ImportError: PocketSphinx is not installed; names the extra.
        ValueError: a word is not in its dictionary.
    """

    SAMPLING_RATE = 16000

    def __init__(self, sentences: Sequence[str]) -> None:
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise ImportError(
                "PocketSphinx is not installed: pip install 'bert-vits2-ray[recognition]'"
            ) from error
        self._decoder = Decoder(lm=None, samprate=self.SAMPLING_RATE, loglevel="FATAL")
        rules = [" ".join(self.words(sentence)) for sentence in sentences]
        for word in sorted({word for rule in rules for word in rule.split()}):
            if self._decoder.lookup_word(word) is None:
                raise ValueError(f"PocketSphinx's dictionary has no {word!r}: use another word")
        grammar = f"#JSGF V1.0;\ngrammar closed;\npublic <said> = {' | '.join(rules)};\n"
        self._decoder.add_jsgf_string("closed", grammar)
        self._decoder.activate_search("closed")

    @staticmethod
    def words(text: str) -> list[str]:
        """Return the words of a text as the dictionary spells them."""
        return re.sub(r"[^a-z']+", " ", text.lower()).split()

    def hear(self, wave: np.ndarray, sampling_rate: int) -> list[str]:
        """Return the words that were heard; none if no sentence fits.

        Args:
            wave: float32 [samples].
            sampling_rate: Hz.
        """
        heard = resample(torch.from_numpy(wave), sampling_rate, self.SAMPLING_RATE).numpy()
        samples = (heard.clip(-1, 1) * 32767).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr.split() if found else []


def similarity_of_speakers(path: str, device: torch.device) -> Scorer:
    """Make a scorer: the cosine of the speaker embeddings of synthesis and recording, -1 to 1.

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
        features = extractor(heard, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        return net(**features.to(device)).embeddings[0]

    def score(
        wave: np.ndarray, sampling_rate: int, utterance: EvaluationUtterance, recording: np.ndarray
    ) -> float:
        with torch.no_grad():
            a = embed(wave, sampling_rate)
            b = embed(recording, sampling_rate)
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    return score


def torchscript(path: str, device: torch.device) -> Scorer:
    """Make a scorer of a TorchScript module that scores a wave at 16 kHz [1, samples].

    A predictor of naturalness is one, such as UTMOS.

    Args:
        path: a file of torch.jit.save.
        device: where it runs.
    """
    net = torch.jit.load(path, map_location=device).eval()

    def score(
        wave: np.ndarray, sampling_rate: int, utterance: EvaluationUtterance, recording: np.ndarray
    ) -> float:
        heard = resample(torch.from_numpy(wave), sampling_rate, 16000).to(device)
        with torch.no_grad():
            return float(net(heard[None]).mean())

    return score
