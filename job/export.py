"""A checkpoint for other tools: `python -m job.export --checkpoint RUN --out FOLDER [--format FORMAT]`.

`reference` and `safetensors`: the weights G_<step>, D_<step>, DUR_<step>, WD_<step>, which
`train.init_from` reads. `onnx`: the generator's inference, G_<step>.text.onnx and
G_<step>.decoder.onnx. All with the reference's config.json.
"""

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import fsspec

from job.settings.cli import read_config, run
from job.settings.reference_config import departures, reference_config
from job.voice.onnx_graphs import TOLERANCE, largest_difference, write_onnx
from trainable.config import GENERATORS, NETWORKS
from trainable.learning.state import build_generator
from trainable.run.checkpoint import load_weights
from trainable.run.format import read_info
from trainable.run.storage import fetched, resolve
from trainable.weights.published import PREFIXES, write_pth, write_safetensors
from trainable.weights.slm import slm_sizes
from trainable.weights.warm_start import read_checkpoint

FORMATS = ("reference", "safetensors", "onnx")


def main(argv: Sequence[str]) -> int:
    """The command."""
    made = argparse.ArgumentParser(
        "python -m job.export", description="Write a checkpoint for other tools."
    )
    made.add_argument(
        "--checkpoint", required=True, help="a checkpoint, a run (its newest one), or RUN/best"
    )
    made.add_argument(
        "--out", required=True, help="folder or URI to write to; no file there is overwritten"
    )
    made.add_argument(
        "--format", choices=FORMATS, default="reference", help="reference: .pth; onnx: inference"
    )
    made.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=NETWORKS,
        help="g alone is enough to speak",
    )
    made.add_argument(
        "--without-optimizer", action="store_true", help="weights only: a third of the size"
    )
    made.add_argument(
        "--weights",
        choices=GENERATORS,
        default="g",
        help="ema: the generator's averaged ones (train.ema_decay)",
    )
    args = made.parse_args(list(argv))
    with fetched(resolve(args.checkpoint)) as folder:
        files = export(
            folder, args.out, args.format, args.networks, not args.without_optimizer, args.weights
        )
        for line in (
            departures(read_config(folder / "config.yaml")) if args.format != "onnx" else ()
        ):
            print(f"note: other tools will not load these files as they are: {line}")
    print("\n".join(files))
    return 0


def export(
    folder: Path,
    out: str,
    form: str,
    networks: Sequence[str] = NETWORKS,
    optimizer: bool = True,
    generator: str = "g",
) -> list[str]:
    """Write the networks of a checkpoint, and config.json.

    Args:
        folder: of the checkpoint.
        out: folder or URI.
        form: one of FORMATS.
        networks: which; `onnx` is of the generator alone.
        optimizer: with their states, but for `onnx`.
        generator: which of GENERATORS the generator has; averaged weights go without an optimizer.

    Returns:
        The paths written.

    Raises:
        ValueError: the checkpoint is damaged, or one of the files is there already; for `onnx`, a
            package is missing, or onnxruntime does not compute what torch does.
    """
    info, cfg = read_info(folder), read_config(folder / "config.yaml")
    with tempfile.TemporaryDirectory() as written:
        if form == "onnx":
            export_onnx(folder, f"{written}/{PREFIXES['g']}_{info.position.step}", generator)
        else:
            export_weights(folder, written, form, networks, optimizer, generator)
        described = reference_config(cfg, info.speakers, slm_sizes(cfg.model.slm))
        Path(written, "config.json").write_text(
            json.dumps(described, indent=2, ensure_ascii=False), encoding="utf-8"
        )
        return publish(Path(written), out)


def export_weights(
    folder: Path, out: str, form: str, networks: Sequence[str], optimizer: bool, generator: str
) -> None:
    """Write the networks' weights to a local folder; see `export`."""
    info, cfg = read_info(folder), read_config(folder / "config.yaml")
    found = read_checkpoint(folder, optimizer, generator)
    for name in (name for name in networks if name in found):
        stem = f"{out}/{PREFIXES[name]}_{info.position.step}"
        if form == "safetensors":
            write_safetensors(Path(f"{stem}.safetensors"), found[name])
        else:
            adamw = {
                "betas": cfg.train.betas,
                "eps": cfg.train.eps,
                "weight_decay": cfg.train.weight_decay,
            }
            write_pth(Path(f"{stem}.pth"), found[name], adamw)


def export_onnx(folder: Path, stem: str, generator: str) -> None:
    """Write the generator's two graphs, and compare them with torch where onnxruntime is installed.

    Raises:
        ValueError: they differ by more than TOLERANCE, or cannot be written.
    """
    cfg = read_config(folder / "config.yaml")
    g = build_generator(cfg.model, cfg.train.segment_size, cfg.data).eval()
    load_weights(folder, generator, g)
    write_onnx(g, stem)
    if importlib.util.find_spec("onnxruntime") is None:
        print("note: the graphs were not compared with torch: onnxruntime is not installed")
        return
    difference = largest_difference(g, stem)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"onnxruntime and torch are {difference:.2g} apart: try another version of onnxruntime or torch"
        )
    print(f"onnxruntime and torch agree: {difference:.2g} apart at most")


def publish(folder: Path, out: str) -> list[str]:
    """Copy a folder's files to a folder or URI.

    Raises:
        ValueError: one of them is there already.
    """
    fs, root = fsspec.core.url_to_fs(out)
    names = sorted(path.name for path in folder.iterdir())
    there = [name for name in names if fs.exists(f"{root}/{name}")]
    if there:
        raise ValueError(
            f"{out} holds {', '.join(there)} already: give another --out, or remove them"
        )
    fs.makedirs(root, exist_ok=True)
    for name in names:
        fs.put_file(str(folder / name), f"{root}/{name}")
    return [f"{out.rstrip('/')}/{name}" for name in names]


if __name__ == "__main__":
    run(main)
