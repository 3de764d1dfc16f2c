"""Write a checkpoint for other tools: `python -m job.export --checkpoint RUN --out FOLDER`.

`--format reference` and `safetensors` write the weights G_<step>, D_<step>, DUR_<step>, WD_<step>,
which `train.init_from` reads; `onnx` writes the generator's inference, G_<step>.text.onnx and
G_<step>.decoder.onnx. All write the reference's config.json. `hub` adds a model card and samples to
`safetensors`, and sends them with --push USER/MODEL; `sbv2` is a folder of Style-Bert-VITS2 2.x.
"""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.export")

import argparse
import re
from collections.abc import Sequence

from job.options.export import HUB, UNKNOWN, command_line
from job.settings.cli import read_config, run
from job.settings.paths import output_folder
from job.settings.reference.config import departures
from job.voice.export import SPEAKING, OnHub, export
from job.voice.hub_push import check_push
from job.voice.source import opened, source_of
from trainable.run.format import CONFIG
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


if __name__ == "__main__":
    run(main)
