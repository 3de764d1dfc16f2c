"""Options of job.synthesize."""

import argparse

from data.text.languages import LANGUAGES
from job.options.voice import (
    MAX_SECONDS,
    add_checkpoint,
    add_device,
    add_reference,
    add_weights,
)
from job.settings.cli import Arguments, hidden_alias

# option -> (default, what it does); numbers of a SpeechRequest
NUMBERS = {
    "--sdp-ratio": (0.2, "share of the stochastic duration predictor"),
    "--noise-scale": (0.6, "variation of the sound"),
    "--noise-scale-w": (0.8, "variation of the rhythm"),
    "--length-scale": (1.0, "above 1 slower, below 1 faster"),
}


def command_line() -> Arguments:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.synthesize", "Speak texts with a trained voice.")
    add_checkpoint(made)
    add_weights(made)
    add_device(made)
    add_texts(made)
    add_style(made)
    return made


def add_texts(made: argparse.ArgumentParser) -> None:
    """Add the options that tell what is spoken, and into what."""
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--text", help="[ZH], [JP] and [EN] in it change the language; - reads standard input"
    )
    what.add_argument(
        "--lines",
        help="a file with one text per line, or one JSON object of text, id and options",
    )
    made.add_argument(
        "--language", choices=LANGUAGES, help="of texts that do not begin with a mark"
    )
    made.add_argument(
        "--out",
        required=True,
        help="a file (.wav, .flac, .ogg, .mp3, ...) or URI, - for standard output; a folder for "
        "--lines",
    )
    made.add_argument(
        "--stream",
        action="store_true",
        help="speak --text sentence by sentence, each written as soon as it is spoken",
    )
    made.add_argument(
        "--pause", type=float, default=0.3, help="seconds between the sentences of --stream"
    )
    made.add_argument("--batch", type=int, default=8, help="lines that are spoken together")
    made.add_argument(
        "--max-seconds",
        type=float,
        default=MAX_SECONDS,
        help="longest speech in one piece, which needs memory: a text, or a sentence of --stream",
    )


def add_style(made: argparse.ArgumentParser) -> None:
    """Add the options that tell who speaks, and how."""
    made.add_argument("--speaker", help="a name of the training data")
    add_reference(made)
    for option, (default, meaning) in NUMBERS.items():
        made.add_argument(option, type=float, default=default, help=meaning)
        underscored = option[2:].replace("-", "_")
        if underscored != option[2:]:
            hidden_alias(made, f"--{underscored}", underscored, type=float)
    made.add_argument("--seed", type=int, default=0, help="equal seeds give equal audio")
