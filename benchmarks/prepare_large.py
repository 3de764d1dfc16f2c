"""What a large preparation's driver holds, and what kills cost: part of benchmarks.prepare.

Recordings are a third of a second of noise at 8 kHz, each its own; texts are a few short ones,
repeated; the BERT model is tiny. It is prepared on two cores by three processes. The first one is
killed (SIGKILL) in the middle of the first pass, the second one in the middle of the second pass.

What is done twice is seen by the times at which the recordings were last read: so the folder for
temporary files must be on a file system that keeps these. Memory is what a process holds itself
(anonymous memory): without pages of files, which the system takes back when it needs room, and
without Ray's object store.
"""

import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.processes import family
from data.config import BertConfig, DataConfig

LARGE = 20_000  # utterances
LOOKED_AT = 50  # one of so many recordings, while it waits for the middle of a pass
SMALL = 20  # times smaller: a corpus whose memory is subtracted, as it does not grow
CORES = 2
RATE = 8000
SAMPLES = 2700
TEXTS = ("Yes.", "No.", "Well.", "Go on.", "Not now.", "Come in.", "I see.", "Good.")


def measure_large(size: int) -> dict[str, float]:
    """Return the figures of one size.

    Returns:
        driver_kb_per_line: by how much the greatest memory of any of the three drivers is above
            that of a corpus a twentieth as large, per line.
        redone_share: the larger share of the two below.
        redone_survey_share: recordings that were read again in the first pass after a kill there.
        redone_features_share: recordings that were read again in the second pass, likewise.
        seconds: all three processes together.
    """
    with tempfile.TemporaryDirectory(prefix="bvr-") as temporary:
        small, large = Path(temporary) / "small", Path(temporary) / "large"
        write_noise(small, size // SMALL)
        write_noise(large, size)
        least = Run(small).finish()
        began = time.monotonic()

        first = Run(large)
        first.kill_when(lambda: is_half_read(large, size))
        before = read_since(large)
        forget_reads(large)

        second = Run(large)
        second.wait_for(f"{size} lines")
        surveyed_again = len(before & read_since(large)) / size
        forget_reads(large)
        second.kill_when(lambda: is_half_read(large, size))
        before = read_since(large)
        forget_reads(large)

        third = Run(large)
        held = max(first.peak, second.peak, third.finish())
        written_again = len(before & read_since(large)) / size
        return {
            "driver_kb_per_line": (held - least) / (size - size // SMALL) / 1000,
            "redone_share": max(surveyed_again, written_again),
            "redone_survey_share": surveyed_again,
            "redone_features_share": written_again,
            "seconds": time.monotonic() - began,
        }


def write_noise(folder: Path, size: int) -> None:
    """Write a corpus of `size` utterances: recordings, and esd.list."""
    (folder / "wavs").mkdir(parents=True)
    rng = np.random.default_rng(size)
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(SAMPLES), RATE, format="WAV", subtype="PCM_U8")
    header = silence.getvalue()[:-SAMPLES]
    lines = []
    for number in range(size):
        noise = rng.integers(38, 218, SAMPLES, np.uint8)  # 128 is silence
        (folder / f"wavs/{number}.wav").write_bytes(header + noise.tobytes())
        lines.append(f"wavs/{number}.wav|s{number % 10}|EN|{TEXTS[number % len(TEXTS)]}\n")
    (folder / "esd.list").write_text("".join(lines), encoding="utf-8")
    forget_reads(folder)


def read_since(folder: Path) -> set[str]:
    """Return the recordings that were read since `forget_reads`."""
    with os.scandir(folder / "wavs") as entries:
        found = ((entry.name, entry.stat()) for entry in entries)
        return {name for name, stat in found if stat.st_atime_ns > stat.st_mtime_ns}


def is_half_read(folder: Path, size: int) -> bool:
    """Tell whether half of the recordings were read since `forget_reads`; looks at few of them."""
    few = [(folder / f"wavs/{number}.wav").stat() for number in range(0, size, LOOKED_AT)]
    return 2 * sum(stat.st_atime_ns > stat.st_mtime_ns for stat in few) >= len(few)


def forget_reads(folder: Path) -> None:
    """Let all recordings seem not to have been read."""
    with os.scandir(folder / "wavs") as entries:
        for entry in entries:
            changed = entry.stat().st_mtime_ns
            os.utime(entry.path, ns=(changed, changed))


class Run:
    """A process that prepares a folder.

    Attributes:
        peak: greatest memory that it held itself, bytes.
    """

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.prepare_large", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        self.peak = 0
        self.told: list[str] = []
        for target in (self._watch, self._listen):
            threading.Thread(target=target, daemon=True).start()

    def finish(self) -> int:
        """Wait for its end; return `peak`."""
        if self.process.wait():
            sys.exit("".join(self.told))
        return self.peak

    def wait_for(self, line: str) -> None:
        """Wait until it has printed a line that begins so."""
        while not any(told.startswith(line) for told in list(self.told)):
            self._check()
            time.sleep(0.05)

    def kill_when(self, reached: Callable[[], bool]) -> None:
        """Kill it when something is reached, and wait for the end of what it had started."""
        while not reached():
            self._check()
            time.sleep(0.5)
        started = family(self.process.pid)
        self.process.kill()
        self.process.wait()
        while any(Path(f"/proc/{pid}/exe").exists() for pid in started):
            time.sleep(0.1)

    def _check(self) -> None:
        if self.process.poll() is not None:
            sys.exit("it ended before it was killed:\n" + "".join(self.told))

    def _watch(self) -> None:
        while self.process.poll() is None:
            self.peak = max(self.peak, held_by(self.process.pid))
            time.sleep(0.1)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(line)


def held_by(pid: int) -> int:
    """Return the memory that a process holds itself, bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def prepare_noise(folder: Path) -> None:
    """Prepare a corpus of `write_noise` on two cores, in this process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")
    from data.corpus.prepare import prepare
    from job.on_ray.private import start_on_loopback

    start_on_loopback(CORES, None)
    prepare(configured(folder))


def configured(folder: Path) -> DataConfig:
    """Return the configuration of a corpus of `write_noise`."""
    return DataConfig(
        transcript=str(folder / "esd.list"),
        shards=str(folder / "out"),
        bert=BertConfig(zh="random", jp="random", en="random", random_width=16),
        sampling_rate=RATE,
        filter_length=128,
        hop_length=64,
        win_length=128,
        n_mel_channels=32,
        min_seconds=0.1,
    )


if __name__ == "__main__":
    prepare_noise(Path(sys.argv[1]))
