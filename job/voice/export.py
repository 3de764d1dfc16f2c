"""A checkpoint's networks as files for other tools: the reference's, safetensors, ONNX graphs."""

import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data.files import located
from job.settings.cli import read_config
from job.settings.reference_config import OWN, own_settings, reference_config
from job.voice.onnx_graphs import TOLERANCE, largest_difference, write_onnx
from trainable.config import GENERATORS
from trainable.networks.generator.build import build_generator
from trainable.run.checkpoint import load_weights
from trainable.run.format import CONFIG, read_info
from trainable.weights.published import prefixes, write_pth, write_safetensors
from trainable.weights.slm import slm_sizes
from trainable.weights.warm_start import read_checkpoint

FORMATS = ("reference", "safetensors", "onnx")


def export(
    folder: Path,
    out: str,
    form: str,
    networks: Sequence[str] | None = None,
    optimizer: bool = True,
    generator: str = GENERATORS[0],
) -> list[str]:
    """Write the networks of a checkpoint, and config.json.

    Args:
        folder: folder of the checkpoint.
        out: folder or URI to write to.
        form: one of FORMATS.
        networks: networks to write; None: all; `onnx` is of the generator alone.
        optimizer: whether the optimizers' states are written too; `onnx` has none.
        generator: which of GENERATORS is written as the generator; averaged weights have no
            optimizer.

    Returns:
        The paths written.

    Raises:
        ValueError: the checkpoint is damaged, or a file exists already; for `onnx`, a package is
            missing, or onnxruntime does not compute what torch does.
    """
    info = read_info(folder)
    cfg = read_config(folder / CONFIG)
    # written here first: a failure leaves nothing at the destination
    with tempfile.TemporaryDirectory() as written:
        if form == "onnx":
            export_onnx(folder, f"{written}/{prefixes()['g']}_{info.position.step}", generator)
        else:
            names = tuple(prefixes()) if networks is None else networks
            export_weights(folder, written, form, names, optimizer, generator)

        described = reference_config(cfg, info.speakers, slm_sizes(cfg.model.slm))
        if own := own_settings(cfg):
            described[OWN] = own
        text = json.dumps(described, indent=2, ensure_ascii=False)
        Path(written, "config.json").write_text(text, encoding="utf-8")
        return publish(Path(written), out)


def export_weights(
    folder: Path, out: str, form: str, networks: Sequence[str], optimizer: bool, generator: str
) -> None:
    """Write the networks' weights to a local folder.

    Args: see `export`.
    """
    info = read_info(folder)
    train = read_config(folder / CONFIG).train
    adamw = {"betas": train.betas, "eps": train.eps, "weight_decay": train.weight_decay}

    found = read_checkpoint(folder, optimizer, generator)
    for name in (name for name in networks if name in found):
        stem = f"{out}/{prefixes()[name]}_{info.position.step}"
        if form == "safetensors":
            write_safetensors(Path(f"{stem}.safetensors"), found[name])
        else:
            write_pth(Path(f"{stem}.pth"), found[name], adamw)


def export_onnx(folder: Path, stem: str, generator: str) -> None:
    """Write the generator's two graphs; compare them with torch if onnxruntime is installed.

    Args:
        folder: folder of the checkpoint.
        stem: path of the graphs without suffix.
        generator: which of GENERATORS.

    Raises:
        ValueError: they differ by more than TOLERANCE, or cannot be written.
    """
    cfg = read_config(folder / CONFIG)
    g = build_generator(cfg.model, cfg.train.segment_size, cfg.data).eval()
    load_weights(folder, generator, g)
    write_onnx(g, stem)
    if importlib.util.find_spec("onnxruntime") is None:
        print("note: the graphs were not compared with torch: onnxruntime is not installed")
        return

    difference = largest_difference(g, stem)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"onnxruntime and torch are {difference:.2g} apart: try another version of onnxruntime "
            "or torch"
        )
    print(f"onnxruntime and torch agree: {difference:.2g} apart at most")


def publish(folder: Path, out: str) -> list[str]:
    """Copy a folder's files to a folder or URI.

    Returns:
        The paths written.

    Raises:
        ValueError: one of them exists already.
    """
    fs, root = located(out)
    names = sorted(path.name for path in folder.iterdir())
    existing = [name for name in names if fs.exists(f"{root}/{name}")]
    if existing:
        raise ValueError(
            f"{out} holds {', '.join(existing)} already: give another --out, or remove them"
        )
    fs.makedirs(root, exist_ok=True)
    for name in names:
        fs.put_file(str(folder / name), f"{root}/{name}")
    return [f"{out.rstrip('/')}/{name}" for name in names]
