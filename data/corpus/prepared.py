"""The settings that shards were prepared with, and whether a configuration still has them.

They stand under `prepared` in the manifest's header. Manifests of older code lack it: they are
compared as far as they tell.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from data.config import DataConfig
from data.corpus.recipe import bert_identity
from data.corpus.transcript import Transcript, transcript_digest
from data.models import MADE_HERE
from data.quality.gate import rejections
from data.settings.quality import QualityConfig
from data.shards.manifest import Manifest
from data.text.languages import find
from data.text.readings import Table, load_readings

# what a row holds follows from these
OF_ROWS = ("peak", "loudness", "trim_db")
QUALITY = "quality.reject"
# which lines become rows, and of which split
OF_CHOICE = (
    "min_seconds",
    "max_seconds",
    "split_seed",
    "validation_per_speaker",
    "validation_share",
    "max_unread_share",
    QUALITY,
)
NORMALISER = "text.normaliser"
READINGS = "text.readings"
# how the shards are cut: of no consequence for what they hold
OF_FILES = ("rows_per_shard",)


@dataclass(frozen=True)
class Change:
    """A key whose value is not the one that the shards were prepared with.

    Attributes:
        key: key of the configuration.
        prepared: value at the preparation.
        configured: value now.
    """

    key: str
    prepared: Any
    configured: Any


def prepared_with(cfg: DataConfig, transcript: Transcript, languages: Iterable[str]) -> dict:
    """Return what the header keeps of a preparation's settings.

    Args:
        cfg: its configuration.
        transcript: what was read.
        languages: languages of the rows.
    """
    named = set(languages)
    return {
        "settings": {
            **_settings(cfg, OF_ROWS + OF_CHOICE + OF_FILES),
            **_settings(cfg, _keys_of_front_ends(named)),
            "trim_margin": cfg.trim_margin,
        },
        "bert": {language: _bert(cfg, language) for language in sorted(named)},
        "transcript": {"uri": transcript.uri, "digest": transcript.digest},
    }


def check_prepared(cfg: DataConfig, manifest: Manifest, other_corpus: bool = False) -> list[str]:
    """Refuse settings that the shards were not prepared with: no start would apply them.

    Args:
        cfg: the configuration.
        manifest: manifest of the shards.
        other_corpus: they are another corpus than that of the configuration: compare what rows
            hold, not which lines became rows.

    Returns:
        What to tell the user that is no reason to refuse.

    Raises:
        ValueError: names the keys, both values of each, and the cure.
    """
    found = changes(cfg, manifest.header, other_corpus)
    notes: list[str] = []
    if not other_corpus:
        if "prepared" not in manifest.header:
            found += _too_long(cfg, manifest)
        moved, notes = _transcript_changes(cfg, manifest.header)
        found += moved + _speaker_changes(cfg, manifest)
    if found:
        listed = "; ".join(
            f"data.{each.key} {each.prepared}, the configuration has {each.configured}"
            for each in found
        )
        raise ValueError(
            f"{manifest.uri} was prepared with {listed}: set it back, or prepare again "
            "(python -m job.prepare; with another data.shards if a run still needs these)"
        )
    return notes


def changes(
    cfg: DataConfig,
    header: Mapping[str, Any],
    other_corpus: bool = False,
    with_files: bool = False,
) -> list[Change]:
    """Return the keys of a configuration that the shards of a header do not have.

    Args:
        cfg: the configuration.
        header: header of their manifest.
        other_corpus: see `check_prepared`.
        with_files: with the keys by which shards are cut.
    """
    found = []
    if cfg.spectrogram_on == "shards" and not header["spectrograms"]:
        found.append(Change("spectrogram_on", "pipeline or device", "shards"))
    if not other_corpus and header["add_blank"] != cfg.add_blank:
        found.append(Change("add_blank", header["add_blank"], cfg.add_blank))
    if "prepared" not in header:
        return found

    # older code rejected nothing for its quality
    before = {QUALITY: rejections(QualityConfig()), **header["prepared"]["settings"]}
    cfg = as_prepared(cfg, header)
    keys = [*OF_ROWS, *_keys_of_front_ends(header["languages"])]
    keys += ["trim_margin"] if cfg.trim_db is not None else []
    keys += [] if other_corpus else OF_CHOICE
    keys += OF_FILES if with_files else []
    found += [
        Change(key, before[key], now)
        for key in keys
        if key in before and before[key] != (now := _setting(cfg, key))
    ]
    return found + _bert_changes(cfg, header)


def as_prepared(cfg: DataConfig, header: Mapping[str, Any]) -> DataConfig:
    """Return a configuration with the normaliser that shards of older code were prepared with.

    There was one, the reference's; the configuration of a run that began then says nothing of it.
    """
    before = header.get("prepared", {}).get("settings", {})
    if NORMALISER in before:
        return cfg
    return replace(cfg, text=replace(cfg.text, normaliser="reference"))


def _settings(cfg: DataConfig, keys: Iterable[str]) -> dict[str, Any]:
    return {key: _setting(cfg, key) for key in keys}


def _setting(cfg: DataConfig, key: str) -> Any:
    """Return the value of a key.

    Of the user's readings how many there are, and their hash; of quality what it rejects.
    """
    if key == QUALITY:
        return rejections(cfg.quality)
    if key == READINGS:
        return _shown_readings(load_readings(cfg.text.readings, cfg.text.words))
    return attrgetter(key)(cfg)


def _shown_readings(table: Table) -> str:
    words = {code: sorted(own.items()) for code, own in sorted(table.items()) if own}
    if not words:
        return "none"
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]
    return f"{sum(map(len, words.values()))} words ({digest})"


def _keys_of_front_ends(languages: Iterable[str]) -> list[str]:
    """Return the keys of `data` that the front ends of these languages read."""
    keys = {key for language in languages for _, key in find(language).settings}
    return sorted({NORMALISER, READINGS, *keys})


def _bert(cfg: DataConfig, language: str) -> dict[str, Any]:
    """Return the model of a language as the configuration names it."""
    model, revision = cfg.bert.model(language)
    found: dict[str, Any] = {"model": model, "revision": revision}
    if model in MADE_HERE:
        found["random_width"] = cfg.bert.random_width
    return found


def _bert_changes(cfg: DataConfig, header: Mapping[str, Any]) -> list[Change]:
    found = []
    for language, before in header["prepared"]["bert"].items():
        own = cfg.bert.key(language).removeprefix("data.")
        now = _bert(cfg, language)
        if now != before and not _same_model(cfg, language, header["berts"][language]):
            found.append(Change(own, _shown(before), _shown(now)))
    return found


def _same_model(cfg: DataConfig, language: str, identity: str) -> bool:
    """Tell whether a model of another name has the same files; asks no hub."""
    model, _ = cfg.bert.model(language)
    return Path(model).is_dir() and bert_identity(model, None) == identity


def _shown(bert: Mapping[str, Any]) -> str:
    width = f" ({bert['random_width']} wide)" if "random_width" in bert else ""
    revision = f"@{bert['revision']}" if bert["revision"] else ""
    return f"{bert['model']}{revision}{width}"


def _too_long(cfg: DataConfig, manifest: Manifest) -> list[Change]:
    """Return the limits that rows of an older manifest break."""
    seconds = manifest.column("samples") / manifest.header["sampling_rate"]
    found = []
    if len(seconds) and seconds.max() > cfg.max_seconds:
        found.append(Change("max_seconds", f"{seconds.max():.2f} or more", cfg.max_seconds))
    if len(seconds) and seconds.min() < cfg.min_seconds:
        found.append(Change("min_seconds", f"{seconds.min():.2f} or less", cfg.min_seconds))
    return found


def _speaker_changes(cfg: DataConfig, manifest: Manifest) -> list[Change]:
    """Return the first speaker whose given row the shards do not have."""
    for name, row in cfg.speakers.items():
        before = manifest.speakers.get(name, "no row")
        if before != row:
            return [Change(f"speakers.{name}", before, row)]
    return []


def _transcript_changes(
    cfg: DataConfig, header: Mapping[str, Any]
) -> tuple[list[Change], list[str]]:
    """Compare the transcript by content, as it may have moved, or be gone.

    Returns:
        The key, if it names another transcript; and what to tell of one that has changed.
    """
    if "prepared" not in header or not cfg.transcript:
        return [], []
    before = header["prepared"]["transcript"]
    same_name = before["uri"] == cfg.transcript
    try:
        digest = transcript_digest(cfg.transcript, cfg.layout, cfg.language)
    except (ValueError, OSError) as error:
        note = f"data.transcript cannot be read ({error}): the shards of {before['uri']} are used"
        return [], [] if same_name else [note]

    if digest == before["digest"]:
        return [], []
    if same_name:
        return [], [
            f"{cfg.transcript} has changed since the shards were prepared, which are used as they "
            "are: python -m job.prepare brings them up to date"
        ]
    return [Change("transcript", before["uri"], cfg.transcript)], []
