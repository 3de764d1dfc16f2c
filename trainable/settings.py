"""Whether a run's configuration fits its shards, and what it said when its checkpoint was written."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from data.config import DataConfig
from data.shards.manifest import Manifest
from trainable.config import ModelConfig


def check_fits(data: DataConfig, model: ModelConfig, manifest: Manifest) -> None:
    """Refuse shards that the networks cannot take.

    Raises:
        ValueError: names the keys.
    """
    for key in ("sampling_rate", "filter_length", "hop_length", "win_length"):
        if manifest.header[key] != getattr(data, key):
            raise ValueError(
                f"{data.shards} was prepared with data.{key} {manifest.header[key]}, the configuration says "
                f"{getattr(data, key)}: prepare again, or set it back"
            )
    if manifest.header["bert_width"] != model.bert_channels:
        raise ValueError(
            f"{data.shards} holds BERT features of width {manifest.header['bert_width']}: "
            f"set model.bert_channels to it (it is {model.bert_channels})"
        )
    if model.n_speakers and max(manifest.speakers.values()) >= model.n_speakers:
        raise ValueError(
            f"{len(manifest.speakers)} speakers do not fit model.n_speakers {model.n_speakers}: raise it"
        )


def changed_settings(before: str, now: str) -> list[str]:
    """The keys of two configurations whose values differ, `key old -> new` each.

    Args:
        before: YAML of sections and keys.
        now: the same. A key that one of them lacks is of another version of the code, and left out.
    """
    old, new = (dict(_keys(yaml.safe_load(text))) for text in (before, now))
    return [
        f"{key} {old[key]} -> {value}"
        for key, value in new.items()
        if key in old and old[key] != value
    ]


def _keys(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
