"""A checkpoint's networks as files for other tools, each in the form that they read."""

import importlib.util
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from data.files import located
from job.options.export import HUB, UNKNOWN
from job.settings.cli import read_config
from job.settings.reference.config import OWN, own_settings, reference_config
from job.voice.hub_card import write_card
from job.voice.hub_push import push
from job.voice.onnx_graphs import TOLERANCE, largest_difference, write_onnx
from job.voice.sbv2 import write_sbv2
from trainable.config import GENERATORS
from trainable.networks.generator.build import build_generator
from trainable.run.checkpoint import load_weights
from trainable.run.format import CONFIG, read_info
from trainable.weights.published import prefixes, write_pth, write_safetensors
from trainable.weights.slm import slm_sizes
from trainable.weights.warm_start import read_checkpoint

SPEAKING = ("onnx", "sbv2")  # of the generator's inference alone


@dataclass(frozen=True)
class OnHub:
    """What `hub` asks for.

    Attributes:
        licence: the hub's name of a licence, for the model card.
        samples: whether a sentence of each language is spoken for it.
        repo: USER/MODEL on the hub that the files are sent to; None: none.
    """

    licence: str = UNKNOWN
    samples: bool = True
    repo: str | None = None


def export(
    folder: Path,
    out: str,
    form: str,
    networks: Sequence[str] | None = None,
    optimizer: bool = True,
    generator: str = GENERATORS[0],
    on_hub: OnHub | None = None,
    half: bool = False,
) -> list[str]:
    """Write the networks of a checkpoint, and config.json.

    Args:
        folder: folder of the checkpoint.
        out: folder or URI to write to.
        form: one of FORMATS.
        networks: networks to write; None: all; SPEAKING are of the generator alone.
        optimizer: whether the optimizers' states are written too; SPEAKING and `hub` have none.
        generator: which of GENERATORS is written as the generator; averaged weights have no
            optimizer.
        on_hub: what `hub` asks for.
        half: weights in half precision, and no optimizers' states; not of SPEAKING.

    Returns:
        The paths written, and the address on the hub.

    Raises:
        ValueError: the checkpoint is damaged, or a file exists already; for `onnx`, a package is
            missing, or onnxruntime does not compute what torch does; for `sbv2`, Style-Bert-VITS2
            has no such networks; for `hub`, the hub refuses them.
        OSError: a store, or the hub, does not answer.
    """
    # written here first: a failure leaves nothing at the destination
    with tempfile.TemporaryDirectory() as made:
        written = Path(made)
        if form == "sbv2":
            write_sbv2(folder, written, generator)
        else:
            optimizer = optimizer and form != HUB and not half
            write_published(folder, written, form, networks, optimizer, generator, half)
        if form == HUB:
            on_hub = on_hub or OnHub()
            write_card(folder, written, generator, on_hub.licence, on_hub.samples)
        paths = publish(written, out)
        if on_hub is not None and on_hub.repo is not None:
            paths.append(push(written, on_hub.repo, out))
        return paths


def write_published(
    folder: Path,
    out: Path,
    form: str,
    networks: Sequence[str] | None,
    optimizer: bool,
    generator: str,
    half: bool,
) -> None:
    """Write networks to a local folder, with the reference's config.json.

    Args: see `export`.
    """
    info = read_info(folder)
    cfg = read_config(folder / CONFIG)
    if form == "onnx":
        export_onnx(folder, f"{out}/{prefixes()['g']}_{info.position.step}", generator)
    else:
        names = tuple(prefixes()) if networks is None else networks
        export_weights(folder, str(out), form, names, optimizer, generator, half)

    described = reference_config(cfg, info.speakers, slm_sizes(cfg.model.slm))
    described[OWN] = own_settings(cfg)
    text = json.dumps(described, indent=2, ensure_ascii=False)
    (out / "config.json").write_text(text, encoding="utf-8")


def export_weights(
    folder: Path,
    out: str,
    form: str,
    networks: Sequence[str],
    optimizer: bool,
    generator: str,
    half: bool,
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
        if half:
            weights = {key: halved(tensor) for key, tensor in found[name].weights.items()}
            found[name] = replace(found[name], weights=weights)
        if form in ("safetensors", HUB):
            write_safetensors(Path(f"{stem}.safetensors"), found[name])
        else:
            write_pth(Path(f"{stem}.pth"), found[name], adamw)


def halved(tensor: Tensor) -> Tensor:
    """Return a tensor in half precision; whole numbers as they are.

    Raises:
        ValueError: it has numbers that half precision cannot hold.
    """
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if half.isinf().any():
        raise ValueError(
            f"a weight is {tensor.abs().max():.3g}, beyond half precision: leave out --half"
        )
    return half


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
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    existing = [name for name in names if fs.exists(f"{root}/{name}")]
    if existing:
        raise ValueError(
            f"{out} holds {', '.join(existing)} already: give another --out, or remove them"
        )
    for name in names:
        fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        fs.put_file(str(folder / name), f"{root}/{name}")
    return [f"{out.rstrip('/')}/{name}" for name in names]
