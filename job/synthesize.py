"""Hear a voice: `python -m job.synthesize --checkpoint RUN --text T --speaker S --out x.wav`.

`--lines FILE --out FOLDER` speaks every line of a file; `--stream` speaks a long text sentence by
sentence, and with `--out -` to whoever listens at the other end of the pipe. docs/synthesis.md has
the details.
"""

if __name__ == "__main__":  # the imports below take seconds
    from job.options import begin

    begin("job.synthesize")

import argparse
import math
import sys
from collections.abc import Callable, Sequence

from data.text.marked import parse
from job.options.synthesize import command_line
from job.settings.cli import run
from job.settings.paths import named_path, output_file, output_folder
from job.voice.device import device_of
from job.voice.lines import KEYS, read_lines
from job.voice.source import opened
from job.voice.speaking import speak_lines, speak_text
from job.voice.voice import SpeechRequest, Voice, speaker_row, speakers_of
from job.voice.wave import STDOUT, form_of

LONGEST_PAUSE_S = 60
LARGEST_BATCH = 1024


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
    args.device = device_of(args.device)


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


if __name__ == "__main__":
    run(main)
