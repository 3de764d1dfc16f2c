"""What the workers would refuse when they start, found before they do: nothing is written here.

The driver calls this before it takes over the run's folder, so that a refused start leaves a run of
that name alone, which may be training. It compares what is small: the newest checkpoint's
description, the shapes of its tensors, and the shards' manifest.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import torch
from torch import nn

from data.files import below, read_file
from data.plan.epoch_plan import Position
from data.plan.history import changed
from data.settings.plan import PlanConfig
from data.shards.manifest import Manifest
from data.stream.spec import schedule_of
from trainable.learning.state import build_networks
from trainable.networks.wavlm import WavLMFeatures
from trainable.run.checkpoint import check_architecture, without_network
from trainable.run.format import CHECKSUMS, CheckpointError, CheckpointInfo, weights_name
from trainable.run.storage import checkpoints, read_state
from trainable.run.tensor_files import read_shapes
from trainable.weights.slm import slm_sizes
from trainable.worker.config import WorkerConfig
from trainable.worker.resume import check_same_data, spec_of_new_run


def check_start(cfg: WorkerConfig, manifest: Manifest) -> None:
    """Refuse settings with which the run cannot start, or continue from its newest checkpoint.

    Args:
        cfg: what the workers are to be told.
        manifest: manifest of the shards.

    Raises:
        ValueError: says what does not fit.
        OSError: the run's folder cannot be read.
    """
    spec = spec_of_new_run(cfg, manifest)
    position = Position()
    if (newest := newest_readable(cfg.folder)) is not None:
        checkpoint, info = newest
        check_same_data(info, spec)
        check_networks(checkpoint, networks_of(cfg))
        position = info.position
        spec = replace(spec, history=changed(info.history, position, spec.cut))
    schedule_of(spec).check(position)


def plan_of_run(plan: PlanConfig, folder: str) -> PlanConfig:
    """Return a plan with nothing left open: `data.plan.mode: auto` is as the run began.

    Args:
        plan: the plan of the configuration.
        folder: folder or URI of the run.

    Raises:
        OSError: the folder cannot be read.
    """
    newest = newest_readable(folder) if plan.mode == "auto" else None
    if newest is None:
        return plan.settled()
    history = newest[1].history
    # older code had no record of it, and no costs
    return plan.settled(history[-1].cut.plan.mode if history else "budget")


def newest_readable(folder: str) -> tuple[str, CheckpointInfo] | None:
    """Return the newest checkpoint that can say what it is, and that; None without one.

    Whether it is whole is not looked at, which would mean to read it.

    Args:
        folder: folder or URI of the run.
    """
    for checkpoint in checkpoints(folder):
        try:
            return checkpoint, read_state(checkpoint)
        except (CheckpointError, FileNotFoundError):
            continue  # damaged: the workers skip it too, and say so
    return None


def networks_of(cfg: WorkerConfig) -> dict[str, nn.Module]:
    """Return the networks of a configuration on the meta device: shapes without values."""
    hidden_size, num_states = slm_sizes(cfg.model.slm)
    slm = SimpleNamespace(hidden_size=hidden_size, num_states=num_states)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return build_networks(cfg.model, cfg.train, cfg.data, cast("WavLMFeatures", slm))


def check_networks(checkpoint: str, nets: Mapping[str, nn.Module]) -> None:
    """Refuse networks other than those of a checkpoint.

    Args:
        checkpoint: path or URI of the checkpoint.
        nets: name -> network, which may be on the meta device.

    Raises:
        CheckpointError: names the tensors that do not fit.
    """
    whole = json.loads(read_file(below(checkpoint, CHECKSUMS)))
    for name, net in nets.items():
        if weights_name(name) not in whole:
            raise without_network(checkpoint, name)
        file = below(checkpoint, weights_name(name))
        try:
            shapes = read_shapes(file)
        except (FileNotFoundError, ValueError):
            return  # damaged: the workers take another checkpoint, and say so
        check_architecture(file, shapes, net)
