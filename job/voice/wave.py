"""Sound files of the format that their ending names, written while the voice speaks."""

import io
import os
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from data.files import is_local, located, put_file

STDOUT = "-"
UNKNOWN_SIZE = 0xFFFFFFFF  # of a WAV whose end is not known yet
# without a header, or of sampling rates of their own
_UNFIT = {"RAW", "SD2", "WVE", "HTK", "SDS", "XI"}
_OTHER_ENDINGS = {"aif": "AIFF", "oga": "OGG", "snd": "AU"}


def endings() -> dict[str, tuple[str, str]]:
    """Return ending -> (format, subtype) of all files that can be written; 16 bits if they can."""
    forms = [form for form in soundfile.available_formats() if form not in _UNFIT]
    named = {form.lower(): form for form in forms} | _OTHER_ENDINGS
    known = {ending: (form, _subtype(form)) for ending, form in named.items() if form in forms}
    opus = "OGG" in forms and soundfile.check_format("OGG", "OPUS")
    return known | ({"opus": ("OGG", "OPUS")} if opus else {})


def _subtype(form: str) -> str:
    fits = soundfile.check_format(form, "PCM_16")
    return "PCM_16" if fits else soundfile.default_subtype(form)


def form_of(out: str) -> tuple[str, str]:
    """Return format and subtype of a file, by its ending.

    Raises:
        ValueError: no sound file has this ending; names those that there are.
    """
    known = endings()
    name = out.rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    if not (dot and stem) or ending.lower() not in known:
        raise ValueError(f"{out} has none of the endings of sounds: .{', .'.join(sorted(known))}")
    return known[ending.lower()]


class WaveWriter:
    """A sound that is written piece by piece; the file is created with the first piece.

    In an object store, it is written at the end.

    Args:
        out: a file or URI whose ending names its format, or STDOUT for a WAV on standard output.
        rate: sampling rate, Hz.

    Raises:
        ValueError: no sound file has this ending, or this format does not have this rate.
    """

    def __init__(self, out: str, rate: int) -> None:
        self.out = out
        self.rate = rate
        self.samples = 0
        self._file: soundfile.SoundFile | None = None
        self._folder: tempfile.TemporaryDirectory | None = None
        if out != STDOUT:
            self.form, self.subtype = form_of(out)
            self._check_rate()

    def _check_rate(self) -> None:
        try:
            soundfile.SoundFile(io.BytesIO(), "w", self.rate, 1, self.subtype, format=self.form)
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"{self.out}: {self.form} ({self.subtype}) does not have the voice's sampling rate "
                f"{self.rate} Hz: give another ending, such as .wav"
            ) from error

    def __enter__(self) -> "WaveWriter":
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._folder is not None:
            if failed is None:
                put_file(self.out, self._local().read_bytes())
            self._folder.cleanup()

    @property
    def seconds(self) -> float:
        """Seconds written so far."""
        return self.samples / self.rate

    def write(self, wave: np.ndarray) -> None:
        """Append samples in [-1, 1], float32 [samples].

        Raises:
            OSError: they cannot be written.
        """
        if self.out == STDOUT:
            self._write_to_stdout(wave)
        else:
            self._write_to_file(wave)
        self.samples += len(wave)

    def _write_to_stdout(self, wave: np.ndarray) -> None:
        header = wav_header(self.rate) if self.samples == 0 else b""
        samples = np.rint(wave.clip(-1, 1) * 32767).astype("<i2")
        sys.stdout.buffer.write(header + samples.tobytes())
        sys.stdout.buffer.flush()

    def _write_to_file(self, wave: np.ndarray) -> None:
        try:
            if self._file is None:
                self._file = self._create()
            self._file.write(wave)
            self._file.flush()
        except soundfile.LibsndfileError as error:
            raise OSError(f"{self.out} cannot be written: {error}") from error

    def _create(self) -> soundfile.SoundFile:
        if not is_local(self.out):
            self._folder = tempfile.TemporaryDirectory()
        path = self._local()
        path.parent.mkdir(parents=True, exist_ok=True)
        # as bytes: a name may be no text in this locale
        name = os.fsencode(path)
        return soundfile.SoundFile(name, "w", self.rate, 1, self.subtype, format=self.form)

    def _local(self) -> Path:
        """Return the file of this machine that is written."""
        if self._folder is not None:
            return Path(self._folder.name, "sound")
        return Path(located(self.out)[1])


def wav_header(rate: int) -> bytes:
    """Return the header of a WAV of one channel and 16 bits whose length is not known yet.

    Players read such a WAV until the pipe ends.
    """
    size = struct.pack("<I", UNKNOWN_SIZE)
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + size
    return b"RIFF" + size + chunks
