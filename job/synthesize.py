"""Hear a voice: `python -m job.synthesize --checkpoint RUN --text T --speaker S --out x.wav`.

`--lines FILE --out FOLDER` speaks every line of a file; `--stream` speaks a long text sentence by
sentence, and with `--out -` to whoever listens at the other end of the pipe. docs/synthesis.md has
the details.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence

from data.text.languages import LANGUAGES
from data.text.marked import parse
from job.settings.cli import Arguments, hidden_alias, run
from job.settings.paths import named_path, output_file, output_folder
from job.voice.device import add_device, add_reference, add_weights, device_of
from job.voice.lines import KEYS, read_lines
from job.voice.source import opened
from job.voice.speaking import speak_lines, speak_text
from job.voice.voice import MAX_SECONDS, SpeechRequest, Voice, speaker_row, speakers_of
from job.voice.wave import STDOUT, form_of

LONGEST_PAUSE_S = 60
LARGEST_BATCH = 1024
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
    text = text_of_input() if args.text == STDOUT else args.text or ""
    fields = {name: getattr(args, name) for name in KEYS if name != "text"}
    default = SpeechRequest(text, **fields)
    # nothing is kept of a checkpoint that was fetched from an object store
    with opened(args.checkpoint, args.weights, speaks_only=True) as folder:
        if args.lines is None:  # lines name their own speakers
            speaker_row(args.speaker, speakers_of(folder))
        speak = speech_of(default, args)
        voice = Voice.load(folder, args.device, args.reference, args.weights, args.max_seconds)

    mistakes = speak(voice)
    for mistake in mistakes:
        print(f"error: {mistake}", file=sys.stderr)
    return 1 if mistakes else 0


def check(args: argparse.Namespace) -> None:
    """Refuse options that do not fit.

    Raises:
        ValueError: names the options.
    """
    if not 0 <= args.pause <= LONGEST_PAUSE_S:
        raise ValueError(f"--pause is {args.pause}: give 0 to {LONGEST_PAUSE_S} seconds")
    if not 1 <= args.batch <= LARGEST_BATCH:
        raise ValueError(f"--batch is {args.batch}: give 1 to {LARGEST_BATCH} lines")
    if not 0 < args.max_seconds < math.inf:
        raise ValueError(f"--max-seconds is {args.max_seconds}: give a number above 0")
    if args.lines is not None and (args.stream or args.out == STDOUT):
        raise ValueError(
            "--lines writes one file per line: leave out --stream, and give a folder as --out"
        )
    device_of(args.device)


def speech_of(default: SpeechRequest, args: argparse.Namespace) -> Callable[[Voice], list[str]]:
    """Read what is to be spoken, and look where it goes; nothing is written yet.

    Args:
        default: the text of the command line, and how it is spoken.
        args: the command line.

    Returns:
        What has a voice speak it, and returns what could not be spoken, and why.

    Raises:
        ValueError: there is nothing to speak, or the place cannot be written to; names the option.
        OSError: the lines cannot be read.
    """
    if args.lines is not None:
        out = output_folder("--out", args.out)
        lines, unread = read_lines(named_path("--lines", args.lines), default)

        def speak(voice: Voice) -> list[str]:
            wrong = unread | speak_lines(voice, lines, out, args.batch)
            return [f"{args.lines}:{number}: {wrong[number]}" for number in sorted(wrong)]

        return speak

    place = args.out if args.out == STDOUT else output_file("--out", args.out)
    if place != STDOUT:
        form_of(place)
    parse(default.text, default.language)
    requests = default.by_sentence() if args.stream else [default]
    return lambda voice: speak_text(voice, requests, place, args.pause)


def text_of_input() -> str:
    """Return the text of standard input.

    Raises:
        ValueError: it is not text in this locale's encoding.
    """
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input is not {error.encoding}: set LC_ALL, or PYTHONUTF8=1"
        ) from error


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = Arguments("python -m job.synthesize", "Speak texts with a trained voice.")
    made.add_argument(
        "--checkpoint",
        required=True,
        help="a checkpoint, a run (its newest one), RUN/best, or a folder, URI or name on the hub "
        "of published G_*.pth or .safetensors and config.json",
    )
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


if __name__ == "__main__":
    run(main)
