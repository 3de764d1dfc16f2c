"""Options of job.export."""

import argparse

from job.options.voice import add_checkpoint, add_weights
from job.settings.cli import Arguments
from trainable.networks.registry import networks

HUB = "hub"
FORMATS = ("reference", "safetensors", "onnx", "sbv2", HUB)
UNKNOWN = "unknown"  # the hub's own name of a licence that nobody has stated


def command_line() -> Arguments:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.export", "Write a checkpoint for other tools.")
    names = tuple(each.name for each in networks())
    add_checkpoint(made)
    made.add_argument(
        "--out", required=True, help="folder or URI to write to; no file there is overwritten"
    )
    made.add_argument(
        "--format",
        choices=FORMATS,
        default="reference",
        help="reference: .pth; onnx: inference; sbv2: for Style-Bert-VITS2; hub: with a model card",
    )
    made.add_argument(
        "--networks",
        nargs="+",
        choices=names,
        default=names,
        help="g alone is enough to speak",
    )
    made.add_argument(
        "--without-optimizer", action="store_true", help="weights only: a third of the size"
    )
    made.add_argument(
        "--half",
        action="store_true",
        help="weights in half precision, without the optimizer: a sixth of the size",
    )
    add_weights(made)
    add_hub(made)
    return made


def add_hub(made: argparse.ArgumentParser) -> None:
    """Add the options of `--format hub`."""
    made.add_argument(
        "--push",
        metavar="USER/MODEL",
        help="send the files of --format hub to the hub, as HF_TOKEN; a new model is private",
    )
    made.add_argument(
        "--license",
        default=UNKNOWN,
        help="licence in the model card, by the hub's name: cc-by-4.0, mit, other, ...",
    )
    made.add_argument(
        "--without-samples", action="store_true", help="speak no sentences for the model card"
    )
