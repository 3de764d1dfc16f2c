"""Options that commands share which speak: which voice, with which weights, and where."""

import argparse

from trainable.config import GENERATORS

AUTO = "auto"  # as --device
MAX_SECONDS = 120.0  # of what is spoken in one piece: memory grows with it


def add_checkpoint(made: argparse.ArgumentParser) -> None:
    """Add the option --checkpoint, which is required."""
    made.add_argument(
        "--checkpoint",
        required=True,
        help="a checkpoint, a run (its newest one), RUN/best, or a folder, URI or name on the hub "
        "of published G_*.pth or .safetensors and config.json",
    )


def add_weights(made: argparse.ArgumentParser) -> None:
    """Add the option --weights."""
    made.add_argument(
        "--weights",
        choices=GENERATORS,
        default="g",
        help="ema: the generator's averaged ones (train.ema_decay)",
    )


def add_reference(made: argparse.ArgumentParser) -> None:
    """Add the option --reference."""
    made.add_argument(
        "--reference", help="a recording of the speaker, for a voice without a speaker table"
    )


def add_device(made: argparse.ArgumentParser) -> None:
    """Add the option --device, of which `job.voice.device.device_of` makes a device."""
    made.add_argument(
        "--device",
        default=AUTO,
        help="where the networks run: cpu, cuda, cuda:1; auto: on a GPU where there is one",
    )
