"""Hears what is said: recognisers of transformers, by folder or hub name.

Whisper and recognisers of the CTC kind (wav2vec 2.0, HuBERT, WavLM, ...) run here; others can be
had by a command (data.transcribe.command).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from data.settings.asr import AsrConfig
from data.text.languages import code_of, find

RATE = 16000  # Hz, of what recognisers of speech are trained with
LONGEST_SECONDS = 30  # that Whisper hears at once


@dataclass(frozen=True)
class Sound:
    """What is to be recognised.

    Attributes:
        uri: where it is.
        content: bytes of the file.
        wav: float32 [samples] at RATE.
        language: code of its language, if that is known.
    """

    uri: str
    content: bytes
    wav: np.ndarray
    language: str | None = None


@dataclass(frozen=True)
class Heard:
    """What was recognised.

    Attributes:
        text: what is said, in one line.
        language: language as the recogniser names it.
        confidence: how sure the recogniser is, 0 to 1; None: it does not tell.
    """

    text: str
    language: str
    confidence: float | None


class Recogniser(Protocol):
    """Recognises speech."""

    def __call__(self, sounds: Sequence[Sound]) -> list[Heard]:
        """Return what is said in sounds, in their order.

        Raises:
            ValueError: the recogniser itself fails.
        """


def kind_of(cfg: AsrConfig) -> Literal["whisper", "ctc"]:
    """Return what kind of recogniser a model is, by its configuration.

    Raises:
        ValueError: it recognises no speech; names the key.
        OSError: its configuration cannot be read.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

    config = AutoConfig.from_pretrained(cfg.model, revision=cfg.revision, trust_remote_code=False)
    if config.model_type == "whisper":
        return "whisper"
    if config.model_type not in MODEL_FOR_CTC_MAPPING_NAMES:
        raise ValueError(
            f"data.asr.model is {cfg.model}: a {config.model_type}, which is not run here: give a "
            "Whisper or a model of the CTC kind, or set data.asr.command"
        )
    if cfg.language is None:
        raise ValueError(
            f"data.asr.model is {cfg.model}: a {config.model_type} does not tell languages: set "
            "data.asr.language"
        )
    return "ctc"


def load_recogniser(cfg: AsrConfig, device: str) -> Recogniser:
    """Load the model of a configuration.

    Raises:
        ValueError, OSError: it cannot be loaded.
    """
    from data.bert.features import quiet_transformers

    with quiet_transformers():
        return (Whisper if kind_of(cfg) == "whisper" else Ctc)(cfg, device)


class Whisper:
    """Whisper (Radford et al., 2022, arXiv:2212.04356): text, language and confidence.

    The confidence is the geometric mean of the probabilities of the tokens.

    Args:
        cfg: `model`, `revision`, `language`.
        device: where it runs.
    """

    def __init__(self, cfg: AsrConfig, device: str) -> None:
        from transformers import AutoProcessor, WhisperForConditionalGeneration

        source: dict[str, Any] = {"revision": cfg.revision, "trust_remote_code": False}
        self.processor: Any = AutoProcessor.from_pretrained(cfg.model, **source)
        source |= {"dtype": _precision(device)}
        net: Any = WhisperForConditionalGeneration.from_pretrained(cfg.model, **source)
        self.net = net.eval().to(device)
        self.language = cfg.language and find(code_of(cfg.language) or "").iso

    def __call__(self, sounds: Sequence[Sound]) -> list[Heard]:
        """Return what is said in sounds of at most LONGEST_SECONDS."""
        import torch

        from data.bert.features import quiet_transformers

        made = self.processor.feature_extractor(
            [sound.wav for sound in sounds],
            sampling_rate=RATE,
            return_tensors="pt",
            return_attention_mask=True,
        )
        features = made.input_features.to(self.net.device, self.net.dtype)
        with torch.inference_mode(), quiet_transformers():
            languages = self._languages(sounds, features)
            hints = {"language": languages, "task": "transcribe"} if self._is_multilingual else {}
            said = self.net.generate(
                features,
                attention_mask=made.attention_mask.to(self.net.device),
                return_dict_in_generate=True,
                output_scores=True,
                **hints,
            )
        texts = self.processor.batch_decode(said.sequences, skip_special_tokens=True)
        sure = self._confidences(said)
        return [Heard(*each) for each in zip(map(_one_line, texts), languages, sure, strict=True)]

    @property
    def _is_multilingual(self) -> bool:
        return bool(getattr(self.net.generation_config, "is_multilingual", False))

    def _languages(self, sounds: Sequence[Sound], features: Any) -> list[str]:
        """Return the languages of sounds: as they are known, or else as Whisper hears them."""
        if not self._is_multilingual:
            return [self.language or "en"] * len(sounds)
        known = [find(each.language).iso if each.language else self.language for each in sounds]
        if all(known):
            return [language or "" for language in known]
        tokens = self.net.detect_language(input_features=features).flatten().tolist()
        named = {token: name.strip("<|>") for name, token in self._tokens_of_languages().items()}
        return [each or named[token] for each, token in zip(known, tokens, strict=True)]

    def _tokens_of_languages(self) -> dict[str, int]:
        return self.net.generation_config.lang_to_id

    def _confidences(self, said: Any) -> list[float]:
        """Return how sure it is of each sequence; 0 of an empty one."""
        import torch

        scores = torch.stack(said.scores, dim=1).float().log_softmax(-1)  # [B, tokens, words]
        tokens = said.sequences[:, -scores.shape[1] :]
        logs = scores.gather(-1, tokens[..., None])[..., 0]
        special = torch.tensor(self.processor.tokenizer.all_special_ids, device=tokens.device)
        spoken = ~torch.isin(tokens, special)
        total = (logs * spoken).nan_to_num(neginf=0.0).sum(1)
        count = spoken.sum(1)
        return [
            math.exp(log / number) if number else 0.0
            for log, number in zip(total.tolist(), count.tolist(), strict=True)
        ]


class Ctc:
    """A recogniser by CTC (Graves et al., 2006), which hears one language.

    The confidence is the mean probability of the frames that are not blank.

    Args: see `Whisper`.
    """

    def __init__(self, cfg: AsrConfig, device: str) -> None:
        from transformers import AutoModelForCTC, AutoProcessor

        source: dict[str, Any] = {"revision": cfg.revision, "trust_remote_code": False}
        self.processor: Any = AutoProcessor.from_pretrained(cfg.model, **source)
        net: Any = AutoModelForCTC.from_pretrained(cfg.model, **source)
        self.net = net.eval().to(device)
        assert cfg.language is not None, "kind_of has looked"
        self.language = cfg.language

    def __call__(self, sounds: Sequence[Sound]) -> list[Heard]:
        """Return what is said in sounds."""
        return [self._hear(sound) for sound in sounds]

    def _hear(self, sound: Sound) -> Heard:
        import torch

        # one by one: some of this kind have no mask, and padding would change what they hear
        made = self.processor(sound.wav, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            logits = self.net(**made.to(self.net.device)).logits[0].float()  # [frames, letters]
        sure, letters = logits.softmax(-1).max(-1)
        spoken = sure[letters != self.net.config.pad_token_id]
        confidence = float(spoken.mean()) if len(spoken) else 0.0
        text = _one_line(self.processor.batch_decode(letters[None])[0])
        return Heard(text, sound.language or self.language, confidence)


def _precision(device: str) -> Any:
    import torch

    return torch.float16 if device == "cuda" else torch.float32


def _one_line(text: str) -> str:
    return " ".join(text.split())
