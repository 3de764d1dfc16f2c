"""What a row depends on besides its recording and text, and the content address made of it all."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from data.bert.models import bert_source, front_end
from data.bert.tokenizer import WEIGHTS, find_file, load_tokenizer
from data.config import DataConfig
from data.shards.manifest import SCHEMA_VERSION
from data.text.front_end import hash_files


@dataclass(frozen=True)
class Recipe:
    """The settings and versions that a row's content follows from.

    Attributes:
        settings: those of DataConfig that a row's audio, length and stored spectrogram depend on.
        front_ends: language -> version and data hash of its front end.
        berts: language -> identity of its BERT model.
        max_tokens: language -> tokens, [CLS] and [SEP] included, that its BERT reads at once; None
            for any number.
        bert_width: numbers per token, the same for all models.
    """

    settings: dict[str, Any]
    front_ends: dict[str, str]
    berts: dict[str, str]
    max_tokens: dict[str, int | None]
    bert_width: int

    def key(self, utterance: str, text: str, language: str, speaker: str, audio: bytes) -> str:
        """Return the content address of a row: equal keys mean equal rows.

        Args:
            utterance: id of the utterance.
            text: text as the transcript writes it.
            language: one of those the recipe was made for.
            speaker: name of the speaker.
            audio: the recording's bytes, as stored.
        """
        return self.key_of(utterance, text, language, speaker, audio_digest(audio))

    def key_of(self, utterance: str, text: str, language: str, speaker: str, digest: str) -> str:
        """Return the same, from the recording's `audio_digest`."""
        # with the version: rows of another layout are prepared again
        parts = [SCHEMA_VERSION, self.settings, self.front_ends[language], self.berts[language]]
        parts += [utterance, text, language, speaker, digest]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def audio_digest(audio: bytes) -> str:
    """Return the identity of a recording: the sha256 of its bytes, as stored."""
    return hashlib.sha256(audio).hexdigest()


def make_recipe(cfg: DataConfig, languages: Iterable[str]) -> Recipe:
    """Return the recipe of a configuration.

    It reads the BERT models' files, but does not load their weights.

    Args:
        cfg: names the models and the settings.
        languages: languages that occur in the transcript.

    Raises:
        ValueError: a model is missing, two differ in width, or settings contradict each other.
    """
    front_ends: dict[str, str] = {}
    berts: dict[str, str] = {}
    max_tokens: dict[str, int | None] = {}
    widths: dict[str, int] = {}
    for language in sorted(languages):
        phonemizer = front_end(cfg, language)
        front_ends[language] = f"{phonemizer.version} {phonemizer.data_hash()}"

        model, revision = bert_source(cfg, language)
        berts[language] = bert_identity(model, revision)

        config_file = find_file(model, revision, "config.json")
        config = json.loads(config_file.read_text(encoding="utf-8"))
        # models that have relative positions only have no limit
        absolute = config.get("position_biased_input", True)
        max_tokens[language] = config["max_position_embeddings"] if absolute else None
        widths[language] = config["hidden_size"]
    return Recipe(_settings(cfg), front_ends, berts, max_tokens, _common_width(cfg, widths))


def bert_identity(model: str, revision: str | None) -> str:
    """Return what a BERT model's features follow from: hashes of its files.

    Args:
        model: folder, or a name on the hub.
        revision: revision of a name on the hub.

    Raises:
        ValueError: files are missing.
    """
    config = find_file(model, revision, "config.json")
    weights = find_file(model, revision, *WEIGHTS)
    return f"{hash_files([config, weights])} {load_tokenizer(model, revision).identity}"


def _common_width(cfg: DataConfig, widths: dict[str, int]) -> int:
    if len(set(widths.values())) > 1:
        shown = ", ".join(f"{cfg.bert.key(name)}: {width}" for name, width in widths.items())
        raise ValueError(f"the BERT models must be equally wide, but are not ({shown})")
    return max(widths.values(), default=0)


def _settings(cfg: DataConfig) -> dict[str, Any]:
    """Return the settings that a row follows from."""
    names = ["sampling_rate", "hop_length", "peak", "loudness", "trim_db"]
    if cfg.trim_db is not None:
        names.append("trim_margin")
    if cfg.spectrogram_on == "shards":
        names += ["filter_length", "win_length"]
    return {name: getattr(cfg, name) for name in names}
