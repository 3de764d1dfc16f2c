"""Where a voice comes from: a checkpoint of a run, or files that somebody has published.

Published files are given the form of a checkpoint, so that all commands read one thing.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from data.models import RANDOM
from data.plan.epoch_plan import Position
from data.settings.dotted_keys import nested
from job.settings.checks import check_given_rows
from job.settings.cli import read_config, to_yaml
from job.settings.config import Config
from job.settings.paths import named_path
from job.settings.reference.config import converted
from job.settings.reference.project import wavlm_of
from trainable.networks.generator.build import build_generator
from trainable.networks.registry import AVERAGED, GENERATOR
from trainable.run.checkpoint import Snapshot, write_snapshot
from trainable.run.format import CONFIG, CheckpointInfo
from trainable.run.storage import fetched, resolve
from trainable.weights.published import DESCRIPTION, Published
from trainable.weights.sources import folder_of, is_of_hub, is_published
from trainable.weights.speakers import speakers_of
from trainable.weights.warm_start import fit, read_folder

OPTION = "--checkpoint"
FOR_TRAINING = "enc_q."  # the posterior encoder, which compressed files lack
PROJECTION = "enc_p.bert_proj.weight"  # [hidden, BERT features, 1]


@contextlib.contextmanager
def opened(given: str, weights: str = GENERATOR, speaks_only: bool = False) -> Iterator[Path]:
    """Give a voice as the local folder of a checkpoint, for as long as the block lasts.

    Args:
        given: value of --checkpoint: a run, RUN/best or a checkpoint; or a folder, URI or name on
            the hub of published files.
        weights: which of GENERATORS is wanted.
        speaks_only: whether the posterior encoder may be missing, which training alone needs.

    Raises:
        ValueError: there is no voice; or published files lack something, are another trainer's, or
            have no averaged weights.
        OSError: its store or the hub does not answer.
    """
    source = source_of(given)
    if not is_published(source):
        with fetched(resolve(source)) as folder:
            yield folder
        return
    if weights == AVERAGED:
        raise ValueError(f"{OPTION} {given} is of published files, which have no averaged weights")
    with tempfile.TemporaryDirectory() as made:
        with _naming(given), folder_of(source, None, OPTION) as files:
            write_as_checkpoint(files, Path(made), speaks_only)
        yield Path(made)


@contextlib.contextmanager
def _naming(given: str) -> Iterator[None]:
    """Name the voice in a ValueError of the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{OPTION} {given}: {error}") from error


def source_of(given: str) -> str:
    """Return the value of --checkpoint with local paths absolute, and names on the hub as they are.

    Raises:
        ValueError: it is no path.
    """
    path = named_path(OPTION, given)
    # `runs/mine` looks like a name on the hub too
    return given if is_of_hub(given) and not Path(path).parent.is_dir() else path


def write_as_checkpoint(files: Path, folder: Path, speaks_only: bool) -> None:
    """Write published files as a checkpoint.

    Args:
        files: folder of G_* and config.json, and perhaps of the other networks.
        folder: empty folder.
        speaks_only: see `opened`.

    Raises:
        ValueError: something is missing, does not fit, or is another trainer's.
    """
    found = read_folder(files, {}, optimizer=False)
    if GENERATOR not in found:
        raise ValueError("holds no generator, G_*.pth or G_*.safetensors")
    file, generator = found[GENERATOR]
    cfg = config_of(files, generator)
    g = build_generator(cfg.model, cfg.train.segment_size, cfg.data)
    fitted = fit(generator, g, file, optimizer=False)
    lacking = [key for key in fitted.initial if not key.startswith(FOR_TRAINING)]
    if lacking or (fitted.initial and not speaks_only):
        first = (lacking or list(fitted.initial))[0]
        raise ValueError(
            f"{file} lacks {first} ({len(fitted.initial)} tensors in all): give the whole file"
        )

    weights = {name: own.weights for name, (_, own) in found.items()}
    weights[GENERATOR] = fitted.published.weights
    training = {
        # the order of the entries is that of the files
        "moments": {name: {key: {} for key in tensors} for name, tensors in weights.items()},
        "learning_rates": dict.fromkeys(weights, cfg.train.learning_rate),
    }
    speakers = speakers_of(files) or {str(row): row for row in range(cfg.model.n_speakers)}
    step = int(file.split("_")[1].split(".")[0])
    info = CheckpointInfo(Position(step, generator.epoch), "", "published", {}, speakers, 1)
    snapshot = Snapshot(weights, training, info, to_yaml(cfg))
    write_snapshot(snapshot, lambda name: (folder / name).open("wb"))


def config_of(files: Path, generator: Published) -> Config:
    """Return the configuration that a published generator speaks with.

    Raises:
        ValueError: config.json is missing, is none, or is another trainer's.
    """
    described = files / DESCRIPTION
    if not described.exists():
        raise ValueError(f"holds no {DESCRIPTION}: add the one that the model was trained with")
    try:
        content = json.loads(described.read_bytes())
    except ValueError as error:
        raise ValueError(f"{DESCRIPTION} is no JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{DESCRIPTION} holds no JSON object of sections")
    ours = converted(content).ours
    # WavLM judges in training alone, so its folder may be another machine's
    with contextlib.suppress(ValueError):
        ours["model.slm.path"] = wavlm_of(ours.get("model.slm.path", RANDOM), None)
    # where random BERT models, as small voices have, are made
    ours["data.shards"] = f"{tempfile.gettempdir()}/bert-vits2-ray-{os.getuid()}"
    cfg = _config(ours)
    check_given_rows(cfg)
    projection = generator.weights.get(PROJECTION)
    if projection is None or projection.ndim != 3:
        return cfg
    return replace(cfg, model=replace(cfg.model, bert_channels=projection.shape[1]))


def _config(ours: Mapping[str, Any]) -> Config:
    """Return the configuration of these keys."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, CONFIG)
        file.write_text(yaml.safe_dump(nested(ours), allow_unicode=True), encoding="utf-8")
        try:
            return read_config(file)
        except ValueError as error:
            # the line is one of ours
            told = re.sub(rf"^{re.escape(str(file))}:\d+: ", "", str(error))
            raise ValueError(f"{DESCRIPTION}: {told}") from error
