"""What a few steps of a run spend their time on: a trace of torch.profiler in the run's folder."""

import gzip
import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from data.files import below, put_file

log = logging.getLogger("bert_vits2_ray")

RANK = 0  # the worker that is profiled; all do the same


class StepProfile:
    """Profiles the steps of `train.profile_steps` on one worker: host, and device where it has one.

    A run that goes on in the middle of them profiles the rest. Viewers such as Perfetto read the
    trace.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: str, rank: int, device: torch.device):
        """Note what is to be profiled.

        Args:
            steps: first and last global step, counted from 1; None: nothing is profiled.
            folder: folder or URI of the run.
            rank: rank of this worker.
            device: where it computes.
        """
        self.steps = steps if rank == RANK else None
        self.folder = folder
        self.first = self.last = 0  # steps that the profiler has seen
        self.profiler: profile | None = None
        self.activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            self.activities.append(ProfilerActivity.CUDA)

    def begin(self, number: int) -> None:
        """Begin, if step `number` is to be profiled and nothing has begun."""
        if self.steps is None or self.profiler is not None:
            return
        if self.steps[0] <= number <= self.steps[1]:
            self.first = number
            self.profiler = profile(activities=self.activities, record_shapes=True)
            with warnings.catch_warnings():
                # it forgets earlier cycles, of which there are none; to keep them takes seconds
                warnings.filterwarnings("ignore", message=".*Profiler clears events")
                self.profiler.start()

    def end(self, number: int) -> None:
        """End and write the trace, if step `number` is the last of those that are profiled."""
        self.last = number
        if self.steps is not None and number == self.steps[1]:
            self._write()

    def close(self) -> None:
        """Write the trace of the steps so far, if the run or its stream ends in their midst."""
        self._write()

    def _write(self) -> None:
        if self.profiler is None:
            return
        self.profiler.stop()
        name = f"profile/steps-{self.first}-{self.last}-rank-{RANK}.json.gz"
        try:
            put_file(below(self.folder, name), self._trace(self.profiler))
            log.info("steps %d to %d are profiled in %s", self.first, self.last, name)
        except OSError as error:  # a run does not end for it
            log.warning("the profile %s cannot be written: %s", name, error)
        self.profiler = None

    def _trace(self, profiler: profile) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "trace.json")
            profiler.export_chrome_trace(str(file))
            return gzip.compress(file.read_bytes(), compresslevel=6)
