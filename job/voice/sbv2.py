"""A generator as a model's folder of Style-Bert-VITS2 2.x, which speaks the same samples there.

Its ordinary networks (not those of JP-Extra) are Bert-VITS2's with one layer more,
`enc_p.style_proj`: it adds a projection of a style vector to what the text encoder is given. With
zeros in that layer the function is the one that was trained, whatever the style vector.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.settings.dotted_keys import attribute, nested
from job.settings.cli import read_config
from job.settings.config import Config
from job.settings.reference.config import SAME, generator_departures
from trainable.networks.registry import GENERATOR
from trainable.run.format import CONFIG, read_info
from trainable.weights.published import Published, prefixes, write_safetensors
from trainable.weights.warm_start import read_checkpoint

STYLE = "Neutral"  # what its tools speak with unless they are told otherwise
STYLE_WIDTH = 256
# it builds these into every network, and reads no key of theirs
FIXED = {
    "use_transformer_flow": True,
    "use_spk_conditioned_encoder": True,
    "n_flow_layer": 4,
    "n_layers_trans_flow": 4,
}
FOR_TRAINING = "enc_q."  # the posterior encoder, which its own published voices lack too
VERSION = "2.5.0"  # of the package whose form this is


def write_sbv2(folder: Path, out: Path, generator: str) -> None:
    """Write a checkpoint's generator for Style-Bert-VITS2.

    Args:
        folder: folder of the checkpoint.
        out: folder to write to.
        generator: which of GENERATORS.

    Raises:
        ValueError: its networks are others; names the keys.
    """
    info = read_info(folder)
    cfg = read_config(folder / CONFIG)
    if found := list(sbv2_departures(cfg)):
        raise ValueError(
            f"--format sbv2: Style-Bert-VITS2 has no such networks: {'; '.join(found)}"
        )

    weights = read_checkpoint(folder, optimizer=False, generator=generator)[GENERATOR].weights
    spoken = {key: value for key, value in weights.items() if not key.startswith(FOR_TRAINING)}
    width = cfg.model.hidden_channels
    spoken["enc_p.style_proj.weight"] = torch.zeros(width, STYLE_WIDTH)
    spoken["enc_p.style_proj.bias"] = torch.zeros(width)
    file = out / f"{prefixes()[GENERATOR]}_{info.position.step}.safetensors"
    write_safetensors(file, Published(spoken, epoch=info.position.epoch))
    np.save(out / "style_vectors.npy", np.zeros((1, STYLE_WIDTH), np.float32))
    described = sbv2_config(cfg, info.speakers)
    text = json.dumps(described, indent=2, ensure_ascii=False)
    (out / "config.json").write_text(text, encoding="utf-8")


def sbv2_config(cfg: Config, speakers: dict[str, int]) -> dict[str, Any]:
    """Return the content of its config.json: what its inference asks for.

    Args:
        cfg: configuration of the run.
        speakers: name -> row of the speaker table.
    """
    values: dict[str, Any] = {
        theirs: attribute(cfg, ours[0])
        for theirs, ours in SAME.items()
        if theirs.startswith(("data.", "model.")) and not theirs.startswith("model.slm.")
    }
    values |= {
        "model_name": cfg.run.name,
        "version": VERSION,
        "data.use_jp_extra": False,
        "data.spk2id": dict(speakers),
        "data.num_styles": 1,
        "data.style2id": {STYLE: 0},
    }
    return nested(values)


def sbv2_departures(cfg: Config) -> Iterator[str]:
    """Yield what of the generator Style-Bert-VITS2 cannot build."""
    yield from generator_departures(cfg)
    for key, value in FIXED.items():
        if getattr(cfg.model, key) != value:
            yield f"model.{key} is {getattr(cfg.model, key)}; there it is always {value}"
    if not cfg.model.n_speakers:
        yield "model.n_speakers is 0; there a voice has a speaker table"
