"""Hear a voice: `python -m job.synthesize --checkpoint RUN --text T --speaker S --out x.wav`.

`--lines FILE --out FOLDER` speaks every line of a file; `--stream` speaks a long text sentence by
sentence, and with `--out -` to whoever listens at the other end of the pipe. docs/synthesis.md has
the details.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from data.text.languages import LANGUAGES
from job.settings.cli import hidden_alias, run
from job.voice.lines import KEYS, read_lines
from job.voice.speaking import speak_lines, speak_text
from job.voice.voice import SpeechRequest, Voice
from job.voice.wave import STDOUT
from trainable.config import GENERATORS
from trainable.run.storage import fetched, resolve

# option -> (default, what it does); numbers of a SpeechRequest
NUMBERS = {
    "--sdp-ratio": (0.2, "share of the stochastic duration predictor"),
    "--noise-scale": (0.6, "variation of the sound"),
    "--noise-scale-w": (0.8, "variation of the rhythm"),
    "--length-scale": (1.0, "above 1 slower, below 1 faster"),
}


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    args = command_line().parse_args(argv)
    check(args)
    text = sys.stdin.read() if args.text == STDOUT else args.text or ""
    fields = {name: getattr(args, name) for name in KEYS if name != "text"}
    default = SpeechRequest(text, **fields)
    # nothing is kept of a checkpoint that was fetched from an object store
    with fetched(resolve(args.checkpoint)) as folder:
        voice = Voice.load(folder, args.device, args.reference, args.weights)

    mistakes = speak(voice, default, args)
    for mistake in mistakes:
        print(f"error: {mistake}", file=sys.stderr)
    return 1 if mistakes else 0


def check(args: argparse.Namespace) -> None:
    """Refuse options that do not fit.

    Raises:
        ValueError: names the options.
    """
    if args.pause < 0 or args.batch < 1:
        raise ValueError(
            f"--pause is {args.pause} and --batch {args.batch}: give at least 0 seconds and 1 line"
        )
    if args.lines and (args.stream or args.out == STDOUT):
        raise ValueError(
            "--lines writes one file per line: leave out --stream, and give a folder as --out"
        )


def speak(voice: Voice, default: SpeechRequest, args: argparse.Namespace) -> list[str]:
    """Speak the text or the lines of the command line; return what could not be spoken, and why."""
    if args.lines:
        lines, wrong = read_lines(args.lines, default)
        wrong |= speak_lines(voice, lines, Path(args.out), args.batch)
        return [f"{args.lines}:{number}: {wrong[number]}" for number in sorted(wrong)]

    # an unknown speaker is reported once, not for every sentence
    voice.speaker_row(default.speaker)
    requests = default.by_sentence() if args.stream else [default]
    return speak_text(voice, requests, args.out, args.pause)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = argparse.ArgumentParser(
        prog="python -m job.synthesize", description="Speak texts with a trained voice."
    )
    made.add_argument(
        "--checkpoint", required=True, help="a checkpoint, a run (its newest one) or RUN/best"
    )
    made.add_argument(
        "--weights",
        choices=GENERATORS,
        default="g",
        help="ema: the averaged ones (train.ema_decay)",
    )
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
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
        help="a .wav or .flac file, - for standard output; a folder for --lines",
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


def add_style(made: argparse.ArgumentParser) -> None:
    """Add the options that tell who speaks, and how."""
    made.add_argument("--speaker", help="a name of the training data")
    made.add_argument(
        "--reference", help="a recording of the speaker, for a voice without a speaker table"
    )
    for option, (default, meaning) in NUMBERS.items():
        made.add_argument(option, type=float, default=default, help=meaning)
        underscored = option[2:].replace("-", "_")
        if underscored != option[2:]:
            hidden_alias(made, f"--{underscored}", underscored, type=float)
    made.add_argument("--seed", type=int, default=0, help="equal seeds give equal audio")


if __name__ == "__main__":
    run(main)
