"""Write a checkpoint for other tools: `python -m job.export --checkpoint RUN --out FOLDER`.

`--format reference` and `safetensors` write the weights G_<step>, D_<step>, DUR_<step>, WD_<step>,
which `train.init_from` reads; `onnx` writes the generator's inference, G_<step>.text.onnx and
G_<step>.decoder.onnx. All write the reference's config.json. `hub` adds a model card and samples to
`safetensors`, and sends them with --push USER/MODEL; `sbv2` is a folder of Style-Bert-VITS2 2.x.
"""

import argparse
import re
from collections.abc import Sequence

from job.settings.cli import Arguments, read_config, run
from job.settings.paths import output_folder
from job.settings.reference_config import departures
from job.voice.device import add_weights
from job.voice.export import FORMATS, HUB, SPEAKING, OnHub, export
from job.voice.hub_card import UNKNOWN
from job.voice.hub_push import check_push
from job.voice.source import opened, source_of
from trainable.run.format import CONFIG
from trainable.weights.published import prefixes
from trainable.weights.sources import is_published

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    on_hub = on_hub_of(args)
    optimizer = not (args.without_optimizer or args.half)
    if args.half and args.format in SPEAKING:
        raise ValueError(f"--half is not of --format {args.format}: leave it out")
    out = output_folder("--out", args.out)
    source = source_of(args.checkpoint)
    optimizer = optimizer and not is_published(source)
    # inference needs no posterior encoder
    with opened(source, args.weights, speaks_only=args.format in SPEAKING) as folder:
        files = export(
            folder, out, args.format, args.networks, optimizer, args.weights, on_hub, args.half
        )
        # ONNX graphs hold their architecture, and what sbv2 cannot hold is refused; the other
        # formats rely on the reference's code
        notes = [] if args.format in SPEAKING else departures(read_config(folder / CONFIG))
    for note in notes:
        print(f"note: other tools will not load these files as they are: {note}")
    if args.format == HUB and args.license == UNKNOWN:
        print("note: the model card states no licence: give --license")
    print("\n".join(files))
    return 0


def on_hub_of(args: argparse.Namespace) -> OnHub | None:
    """Return what `--format hub` asks for; None for another format.

    Raises:
        ValueError: options of the hub for another format, or ones that cannot be; names them.
    """
    own = {
        "--push": args.push is not None,
        "--license": args.license != UNKNOWN,
        "--without-samples": args.without_samples,
    }
    if args.format != HUB:
        if given := [option for option, is_given in own.items() if is_given]:
            raise ValueError(f"{given[0]} is of --format {HUB}: add that, or leave it out")
        return None
    if not LICENCE.fullmatch(args.license):
        raise ValueError(
            f"--license is {args.license!r}: give the hub's name of it, such as cc-by-4.0 or other"
        )
    if args.push is not None:
        check_push(args.push)
    return OnHub(args.license, not args.without_samples, args.push)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.export", "Write a checkpoint for other tools.")
    made.add_argument(
        "--checkpoint",
        required=True,
        help="a checkpoint, a run (its newest one), RUN/best, or a folder, URI or name on the hub "
        "of published G_*.pth or .safetensors and config.json",
    )
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
        choices=tuple(prefixes()),
        default=tuple(prefixes()),
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


if __name__ == "__main__":
    run(main)
