"""TensorBoard events as bytes, which go to the run's folder in the same way as everything else.

torch's SummaryWriter opens its files itself: a full disk ends the training with its traceback, and
in an object store it reads and writes the whole file again at every flush.
"""

import io
import os
import platform
import time
from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

VERSION = Event(file_version="brain.Event:2")  # begins every event file
_numbers = count()


def record(event: Event) -> bytes:
    """Return an event as it stands in a file."""
    # the record's own checksums are part of the format
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def event_file() -> str:
    """Return a new name, unique, and sorted behind those before."""
    seconds = f"{int(time.time()):010d}"
    number = f"{next(_numbers):06d}"
    return f"events.out.tfevents.{seconds}.{platform.node()}.{os.getpid()}.{number}"


class Board:
    """Collects events until they are taken."""

    def __init__(self, purge_step: int):
        """Begin a session.

        Args:
            purge_step: what earlier sessions have written from this step on no longer counts.
        """
        start = SessionLog(status=SessionLog.START)
        self.records = [record(Event(wall_time=time.time(), step=purge_step, session_log=start))]

    def take(self) -> bytes:
        """Return all events since the last time."""
        taken = b"".join(self.records)
        self.records = []
        return taken

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a number."""
        self._add(summary.scalar(tag, value), step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Add an image, uint8 [height, width, 3]."""
        self._add(summary.image(tag, image, dataformats="HWC"), step)

    def audio(
        self, tag: str, wave: np.ndarray, step: int, sampling_rate: int, text: str = ""
    ) -> None:
        """Add a sound, float32 [samples], and what it says, which is shown beside it."""
        made = summary.audio(tag, torch.from_numpy(wave), sample_rate=sampling_rate)
        made.value[0].metadata.summary_description = text
        self._add(made, step)

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Add what the tab Custom Scalars shows: category -> chart -> tags of its lines."""
        described = {
            category: {chart: ("Multiline", list(tags)) for chart, tags in of_category.items()}
            for category, of_category in charts.items()
        }
        self._add(summary.custom_scalars(described), 0)

    def _add(self, values: Summary, step: int) -> None:
        self.records.append(record(Event(wall_time=time.time(), step=step, summary=values)))
