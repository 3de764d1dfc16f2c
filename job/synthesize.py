"""Hear a voice: `python -m job.synthesize --checkpoint RUN --text T --speaker S --language ZH|JP|EN --out x.wav`.

`--lines FILE --out FOLDER` speaks every line of a file; `--stream` speaks a long text sentence by
sentence, and with `--out -` to whoever listens at the other end of the pipe. docs/synthesis.md has
the details.
"""

import argparse
import json
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from data.config import LANGUAGES
from data.files import read_file, stays_below
from job.settings.cli import run
from job.voice.voice import Speech, Utterance, Voice
from trainable.config import GENERATORS
from trainable.run.storage import fetched, resolve

STDOUT = "-"
UNKNOWN_SIZE = 0xFFFFFFFF  # of a WAV that is being spoken
KEYS: dict[str, type] = {
    **dict.fromkeys(("text", "speaker", "language"), str),
    **dict.fromkeys(("sdp_ratio", "noise_scale", "noise_scale_w", "length_scale"), float),
    "seed": int,
}  # of Speech


@dataclass(frozen=True)
class Line:
    """A line of a file that is to be spoken.

    Attributes:
        number: in the file, from 1.
        id: name of its recording, without ending.
        speech: what is said, and how.
    """

    number: int
    id: str
    speech: Speech


class WaveWriter:
    """Audio of 16 bits, written as it comes; the file begins with the first of it.

    Args:
        out: a .wav or .flac file, or STDOUT for a WAV on standard output.
        rate: Hz.
    """

    def __init__(self, out: str, rate: int) -> None:
        self.out, self.rate, self.samples = out, rate, 0
        self._file: soundfile.SoundFile | None = None

    def __enter__(self) -> "WaveWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, wave: np.ndarray) -> None:
        """Append samples in [-1, 1], float32 [samples]."""
        if self.out == STDOUT:
            header = wav_header(self.rate) if self.samples == 0 else b""
            sys.stdout.buffer.write(
                header + np.rint(wave.clip(-1, 1) * 32767).astype("<i2").tobytes()
            )
            sys.stdout.buffer.flush()
        else:
            if self._file is None:
                Path(self.out).parent.mkdir(parents=True, exist_ok=True)
                self._file = soundfile.SoundFile(self.out, "w", self.rate, 1, "PCM_16")
            self._file.write(wave)
            self._file.flush()
        self.samples += len(wave)


def wav_header(rate: int) -> bytes:
    """Of a WAV of one channel and 16 bits whose end is not known yet; players read on until the pipe ends."""
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    chunks = (
        b"WAVEfmt "
        + struct.pack("<I", len(form))
        + form
        + b"data"
        + struct.pack("<I", UNKNOWN_SIZE)
    )
    return b"RIFF" + struct.pack("<I", UNKNOWN_SIZE) + chunks


def speak_text(voice: Voice, speeches: Sequence[Speech], out: str, pause: float) -> list[str]:
    """Speak texts one after the other into one file.

    Args:
        voice: speaks.
        speeches: sentences, or one whole text.
        out: see WaveWriter.
        pause: seconds of silence between them.

    Returns:
        What could not be spoken, and why.

    Raises:
        ValueError: nothing could be spoken.
    """
    mistakes = []
    with WaveWriter(out, voice.data.sampling_rate) as writer:
        for number, speech in enumerate(speeches, start=1):
            try:
                wave = voice.say(speech)
            except ValueError as error:
                mistakes.append(f"sentence {number}: {error}" if len(speeches) > 1 else str(error))
                continue
            silence = np.zeros(int(pause * writer.rate) if writer.samples else 0, np.float32)
            writer.write(np.concatenate([silence, wave]))
    if not writer.samples:
        raise ValueError("; ".join(mistakes))
    report = f"{out}: {writer.samples / writer.rate:.2f} s, step {voice.info.position.step}"
    print(report, file=sys.stderr if out == STDOUT else sys.stdout)
    return mistakes


def read_lines(path: str, default: Speech) -> tuple[list[Line], dict[int, str]]:
    """Read a file of texts, UTF-8, one a line: plain, or as a JSON object of `id` and the fields of Speech.

    Args:
        path: file or URI.
        default: what a line does not say.

    Returns:
        The lines, and what is wrong with the others by their numbers. Blank lines are left out.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        rows = read_file(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it so") from error
    lines: list[Line] = []
    mistakes: dict[int, str] = {}
    taken: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        try:
            line = read_line(number, row.strip(), default)
            if line.id in taken:
                raise ValueError(
                    f"the id {line.id!r} is that of line {taken[line.id]}: give another one"
                )
        except ValueError as error:
            mistakes[number] = str(error)
            continue
        taken[line.id] = number
        lines.append(line)
    return lines, mistakes


def read_line(number: int, row: str, default: Speech) -> Line:
    """One line of `read_lines`.

    Raises:
        ValueError: a JSON object with an unknown key or an impossible value.
    """
    if not row.startswith("{"):
        return Line(number, f"{number:05}", replace(default, text=row))
    given = json.loads(row)
    own = given.pop("id", f"{number:05}")
    if not isinstance(own, str) or "/" in own or not stays_below(own):
        raise ValueError(f"id is {own!r}: give the name of a file, without folder and ending")
    if "text" not in given:
        raise ValueError("it has no text")
    for key, value in given.items():
        if key not in KEYS:
            raise ValueError(f"unknown key {key!r}; known are id, {', '.join(KEYS)}")
        wanted = (int, float) if KEYS[key] is float else KEYS[key]
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise ValueError(
                f"{key} is {json.dumps(value)}, but must be of type {KEYS[key].__name__}"
            )
    return Line(number, own, replace(default, **given))


def speak_lines(voice: Voice, lines: Sequence[Line], out: Path, batch: int) -> dict[int, str]:
    """Speak lines in batches of like length, each into `<id>.wav`.

    Args:
        voice: speaks.
        lines: their ids differ.
        out: folder.
        batch: lines that are spoken together.

    Returns:
        What is wrong with the lines that could not be spoken, by their numbers.
    """
    out.mkdir(parents=True, exist_ok=True)
    mistakes: dict[int, str] = {}

    def readable(part: Sequence[Line]) -> Iterator[tuple[Line, Utterance]]:
        for line in part:
            try:
                yield line, voice.read(line.speech)
            except ValueError as error:
                mistakes[line.number] = str(error)

    # lines of like length pad little
    by_length = sorted(lines, key=lambda line: len(line.speech.text))
    for start in range(0, len(by_length), batch):
        read = list(readable(by_length[start : start + batch]))
        waves = voice.speak([utterance for _, utterance in read]) if read else []
        for (line, _), wave in zip(read, waves, strict=True):
            with WaveWriter(f"{out / line.id}.wav", voice.data.sampling_rate) as writer:
                writer.write(wave)
            print(f"{writer.out}: {writer.samples / writer.rate:.2f} s")
    return mistakes


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m job.synthesize", description="Speak texts with a trained voice."
    )
    made.add_argument(
        "--checkpoint", required=True, help="a checkpoint, a run (its newest one) or RUN/best"
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--text", help="[ZH], [JP] and [EN] in it change the language; - reads standard input"
    )
    what.add_argument(
        "--lines", help="a file with a text, or a JSON object of text, id and options, a line"
    )
    made.add_argument("--speaker", help="a name of the training data")
    made.add_argument(
        "--reference", help="a recording of the speaker, for a voice without a speaker table"
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
        help="speak --text sentence by sentence, written as it goes",
    )
    made.add_argument(
        "--pause", type=float, default=0.3, help="seconds between the sentences of --stream"
    )
    made.add_argument("--batch", type=int, default=8, help="lines that are spoken together")
    made.add_argument(
        "--sdp_ratio", type=float, default=0.2, help="share of the stochastic duration predictor"
    )
    made.add_argument("--noise_scale", type=float, default=0.6, help="variation of the sound")
    made.add_argument("--noise_scale_w", type=float, default=0.8, help="variation of the rhythm")
    made.add_argument(
        "--length_scale", type=float, default=1.0, help="above 1 slower, below 1 faster"
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument(
        "--weights",
        choices=GENERATORS,
        default="g",
        help="ema: the averaged ones (train.ema_decay)",
    )
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return made


def main(argv: Sequence[str]) -> int:
    """The command."""
    args = parser().parse_args(argv)
    if args.pause < 0 or args.batch < 1:
        raise ValueError(
            f"--pause is {args.pause} and --batch {args.batch}: give at least 0 seconds and 1 line"
        )
    if args.lines and (args.stream or args.out == STDOUT):
        raise ValueError(
            "--lines writes a file a line: leave out --stream, and give a folder as --out"
        )
    text = sys.stdin.read() if args.text == STDOUT else args.text or ""
    default = Speech(text, **{name: getattr(args, name) for name in KEYS if name != "text"})
    with fetched(resolve(args.checkpoint)) as folder:
        voice = Voice.load(folder, args.device, args.reference, args.weights)
    if args.lines:
        lines, wrong = read_lines(args.lines, default)
        wrong |= speak_lines(voice, lines, Path(args.out), args.batch)
        mistakes = [f"{args.lines}:{number}: {wrong[number]}" for number in sorted(wrong)]
    else:
        voice.speaker_row(default.speaker)  # or every sentence would say so
        speeches = default.by_sentence() if args.stream else [default]
        mistakes = speak_text(voice, speeches, args.out, args.pause)
    for mistake in mistakes:
        print(f"error: {mistake}", file=sys.stderr)
    return 1 if mistakes else 0


if __name__ == "__main__":
    run(main)
