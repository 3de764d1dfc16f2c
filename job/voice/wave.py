"""Audio files of 16 bits, written while the voice speaks."""

import struct
import sys
from pathlib import Path

import numpy as np
import soundfile

STDOUT = "-"
UNKNOWN_SIZE = 0xFFFFFFFF  # of a WAV whose end is not known yet


class WaveWriter:
    """A sound that is written piece by piece; the file is created with the first piece.

    Args:
        out: a .wav or .flac file, or STDOUT for a WAV on standard output.
        rate: sampling rate, Hz.
    """

    def __init__(self, out: str, rate: int) -> None:
        self.out = out
        self.rate = rate
        self.samples = 0
        self._file: soundfile.SoundFile | None = None

    def __enter__(self) -> "WaveWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def seconds(self) -> float:
        """Seconds written so far."""
        return self.samples / self.rate

    def write(self, wave: np.ndarray) -> None:
        """Append samples in [-1, 1], float32 [samples]."""
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
        if self._file is None:
            Path(self.out).parent.mkdir(parents=True, exist_ok=True)
            self._file = soundfile.SoundFile(self.out, "w", self.rate, 1, "PCM_16")
        self._file.write(wave)
        self._file.flush()


def wav_header(rate: int) -> bytes:
    """Return the header of a WAV of one channel and 16 bits whose length is not known yet.

    Players read such a WAV until the pipe ends.
    """
    size = struct.pack("<I", UNKNOWN_SIZE)
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + size
    return b"RIFF" + size + chunks
