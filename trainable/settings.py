"""Whether a run's configuration fits its shards, and how it differs from a checkpoint's."""

import yaml

from data.config import DataConfig
from data.settings.dotted_keys import flat
from data.shards.manifest import Manifest
from trainable.model_config import ModelConfig


def check_fits(data: DataConfig, model: ModelConfig, manifest: Manifest) -> None:
    """Refuse shards that the networks cannot take.

    Raises:
        ValueError: names the keys.
    """
    # what the shards' audio and spectrograms were made with
    for key in ("sampling_rate", "filter_length", "hop_length", "win_length"):
        prepared = manifest.header[key]
        configured = getattr(data, key)
        if prepared != configured:
            raise ValueError(
                f"{data.shards} was prepared with data.{key} {prepared}, "
                f"the configuration has {configured}: prepare again, or set it back"
            )

    width = manifest.header["bert_width"]
    if width != model.bert_channels:
        raise ValueError(
            f"{data.shards} holds BERT features of width {width}: "
            f"set model.bert_channels to it (it is {model.bert_channels})"
        )


def check_speakers(model: ModelConfig, manifest: Manifest) -> None:
    """Refuse more speakers than the networks have rows for.

    Raises:
        ValueError: names the key.
    """
    highest = max(manifest.speakers.values())
    if model.n_speakers and highest >= model.n_speakers:
        raise ValueError(
            f"{len(manifest.speakers)} speakers do not fit model.n_speakers {model.n_speakers}: "
            f"raise it to {highest + 1} or more"
        )


def check_splits(data: DataConfig, manifest: Manifest) -> None:
    """Refuse shards that hold nothing to train on.

    Raises:
        ValueError: says what to change.
    """
    utterances = len(manifest)
    if utterances and not len(manifest.rows("train")):
        raise ValueError(
            f"{data.shards}: all {utterances} utterances are of the split validation, nothing is "
            "left to train on: let the transcript's `split` say train in some, or leave it out, "
            "and run python -m job.prepare"
        )


def changed_settings(before: str, now: str) -> list[str]:
    """Return the keys of two configurations whose values differ, each as `key old -> new`.

    Args:
        before: YAML of sections and keys.
        now: YAML of the same. A key that one of them lacks is of another version of the code, and
            left out.
    """
    old = flat(yaml.safe_load(before))
    new = flat(yaml.safe_load(now))
    return [
        f"{key} {old[key]} -> {value}"
        for key, value in new.items()
        if key in old and old[key] != value
    ]
