"""Write a checkpoint for other tools: `python -m job.export --checkpoint RUN --out FOLDER`.

`--format reference` and `safetensors` write the weights G_<step>, D_<step>, DUR_<step>, WD_<step>,
which `train.init_from` reads; `onnx` writes the generator's inference, G_<step>.text.onnx and
G_<step>.decoder.onnx. All write the reference's config.json.
"""

import argparse
from collections.abc import Sequence

from job.settings.cli import Arguments, read_config, run
from job.settings.paths import output_folder
from job.settings.reference_config import departures
from job.voice.export import FORMATS, export
from job.voice.source import opened, source_of
from trainable.config import GENERATORS
from trainable.run.format import CONFIG
from trainable.weights.published import prefixes
from trainable.weights.sources import is_published


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(list(argv))
    optimizer = not args.without_optimizer
    out = output_folder("--out", args.out)
    source = source_of(args.checkpoint)
    optimizer = optimizer and not is_published(source)
    # inference needs no posterior encoder
    with opened(source, args.weights, speaks_only=args.format == "onnx") as folder:
        files = export(folder, out, args.format, args.networks, optimizer, args.weights)
        # ONNX graphs hold their architecture; the other formats rely on the reference's code
        notes = departures(read_config(folder / CONFIG)) if args.format != "onnx" else []
    for note in notes:
        print(f"note: other tools will not load these files as they are: {note}")
    print("\n".join(files))
    return 0


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
        "--format", choices=FORMATS, default="reference", help="reference: .pth; onnx: inference"
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
        "--weights",
        choices=GENERATORS,
        default="g",
        help="ema: the generator's averaged ones (train.ema_decay)",
    )
    return made


if __name__ == "__main__":
    run(main)
