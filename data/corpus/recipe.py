"""What a shard row depends on besides its recording and text, and the content address made of it all.

Also where a configuration's front ends and BERT models are made, so that preparation and synthesis
make the same ones. Torch is imported with the models alone: most processes of a preparation do
without it.
"""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from data.bert.tokenizer import WEIGHTS, find_file, load_tokenizer
from data.config import DataConfig
from data.files import PART_SUFFIX
from data.shards.manifest import SCHEMA_VERSION
from data.text.front_end import FrontEnd, get_front_end, hash_files

if TYPE_CHECKING:
    from data.bert.features import BertFeatures

RANDOM = "random"

# The vocabulary of `random` models is fixed: a line more in the transcript changes nothing of what
# was prepared.
_HAN = [chr(code) for code in range(0x4E00, 0x9FA6)]
_KANA = [chr(code) for code in range(0x3040, 0x3100)]
_ENGLISH_WORDS = Path(__file__).with_name("common_english_words.txt")


@dataclass(frozen=True)
class Recipe:
    """The settings and versions that a row's content follows from.

    Attributes:
        settings: those of DataConfig that a row's audio, length and stored spectrogram depend on.
        front_ends: language -> version and data hash of its front end.
        berts: language -> identity of its BERT model.
        max_tokens: language -> tokens, [CLS] and [SEP] included, that its BERT reads at once; none:
            any number.
        bert_width: numbers a token, the same for all models.
    """

    settings: dict[str, Any]
    front_ends: dict[str, str]
    berts: dict[str, str]
    max_tokens: dict[str, int | None]
    bert_width: int

    def key(self, utterance: str, text: str, language: str, speaker: str, audio: bytes) -> str:
        """Content address of a row: equal keys mean equal rows.

        Args:
            utterance: id of the utterance.
            text: as the transcript writes it.
            language: one of those the recipe was made for.
            speaker: name of the speaker.
            audio: the recording's bytes, as it lies there.
        """
        parts = [SCHEMA_VERSION, self.settings, self.front_ends[language], self.berts[language]]
        parts += [utterance, text, language, speaker, hashlib.sha256(audio).hexdigest()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def make_recipe(cfg: DataConfig, languages: Iterable[str]) -> Recipe:
    """The recipe of a configuration; reads the BERT models' files, but does not load their weights.

    Args:
        cfg: names the models and the settings.
        languages: those that occur.

    Raises:
        ValueError: a model is missing, two differ in width, or settings contradict each other.
    """
    front_ends, berts, max_tokens, widths = {}, {}, {}, {}
    for language in sorted(languages):
        phonemizer = front_end(cfg, language)
        front_ends[language] = f"{phonemizer.version} {phonemizer.data_hash()}"
        model, revision = bert_source(cfg, language)
        files = [find_file(model, revision, *n) for n in (["config.json"], WEIGHTS)]
        berts[language] = f"{hash_files(files)} {load_tokenizer(model, revision).identity}"
        shape = json.loads(files[0].read_text(encoding="utf-8"))
        # models with relative positions alone have no limit
        absolute = shape.get("position_biased_input", True)
        max_tokens[language] = shape["max_position_embeddings"] if absolute else None
        widths[language] = shape["hidden_size"]
    if len(set(widths.values())) > 1:
        shown = ", ".join(
            f"data.bert.{language.lower()}: {width}" for language, width in widths.items()
        )
        raise ValueError(f"the BERT models must be equally wide, but are not ({shown})")
    return Recipe(_settings(cfg), front_ends, berts, max_tokens, max(widths.values(), default=0))


def _settings(cfg: DataConfig) -> dict[str, Any]:
    if cfg.peak is not None and cfg.loudness is not None:
        raise ValueError(
            "data.peak and data.loudness are both set: scale recordings by one of them"
        )
    if cfg.peak is not None and not 0 < cfg.peak <= 1:
        raise ValueError(f"data.peak is {cfg.peak}: full scale is 1")
    if cfg.trim_db is not None and (cfg.trim_db <= 0 or cfg.trim_margin < 0):
        raise ValueError("data.trim_db must be above 0, and data.trim_margin at least 0")
    names = ["sampling_rate", "hop_length", "peak", "loudness", "trim_db"]
    if cfg.trim_db is not None:
        names.append("trim_margin")
    if cfg.spectrogram_on == "shards":
        names += ["filter_length", "win_length"]
    return {name: getattr(cfg, name) for name in names}


def front_end(cfg: DataConfig, language: str) -> FrontEnd:
    """The front end of a language, as the configuration wants it."""
    if language == "JP":
        return get_front_end(language, engine=cfg.japanese_engine)
    if language == "EN":
        return get_front_end(language, tokenizer=load_tokenizer(*bert_source(cfg, language)))
    return get_front_end(language)


def bert_features(cfg: DataConfig, language: str, device: str = "cpu") -> "BertFeatures":
    """The BERT model of a language, loaded."""
    from data.bert.features import BertFeatures

    return BertFeatures(*bert_source(cfg, language), device=device)


def bert_source(cfg: DataConfig, language: str) -> tuple[str, str | None]:
    """Folder or hub name, and revision, of a language's BERT model; a `random` one is made if it is not there yet.

    Random models lie beside local shards, otherwise in this machine's temporary folder; they are
    the same everywhere.
    """
    model, revision = cfg.bert.model(language)
    if model != RANDOM:
        return model, revision
    fs, root = url_to_fs(cfg.shards)
    base = (
        Path(root)
        if isinstance(fs, LocalFileSystem)
        else Path(tempfile.gettempdir()) / f"bert-vits2-ray-{os.getuid()}"
    )
    folder = base / "bert" / f"{language}-{cfg.bert.random_width}"
    if not folder.exists():
        from data.bert.tiny import make_tiny_bert

        part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{PART_SUFFIX}")
        make_tiny_bert(part, language, _random_texts(language), width=cfg.bert.random_width)
        try:
            part.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(part)  # another process was first
    return str(folder), None


def _random_texts(language: str) -> list[str]:
    if language == "EN":
        words = _ENGLISH_WORDS.read_text(encoding="utf-8").split()
        return [*words, *(word.capitalize() for word in words)]
    return _HAN if language == "ZH" else [*_HAN, *_KANA]
