"""Feeding a device: the next step is made ready on a thread while the present one is trained on.

On a GPU a thread unpacks the next step's arrays, pins them, and copies them on a CUDA stream of its
own, where the spectrograms are computed too. So they lie on the device when the step begins, and
neither the host nor the device waits for them. On a CPU the same thread does the same without a
stream.
"""

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from data.config import DataConfig
from data.stream.collate import TtsBatch, to_batch

log = logging.getLogger("bert_vits2_ray")
END_WITHIN_S = 10.0
Made = TypeVar("Made")
Ready = TypeVar("Ready")


class Feed(Iterator[Ready], Generic[Made, Ready]):
    """What an iterator yields, made ready on a thread, one item ahead; a context manager.

    While an item is worked on the next one is made ready, and none beyond it. An error comes where
    its item would have come, after all items before it.
    """

    def __init__(self, items: Generator[Made], make_ready: Callable[[Made], Ready]):
        """Begin to make the first item ready.

        Args:
            items: yields what is to be made ready, never None; runs and is closed on the thread.
            make_ready: makes an item ready, on the thread.
        """
        self.items = items
        self.make_ready = make_ready
        self.ready = deque[Ready]()
        self.error: BaseException | None = None
        self.wanted = 1  # items that the thread may still make
        self.ended = False  # the thread makes no more
        self.closed = False  # nobody takes any more
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._work, name="feed", daemon=True)
        self.thread.start()

    def __enter__(self) -> "Feed[Made, Ready]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Ready:
        """Wait for the next item, and let the one behind it be made ready.

        Raises:
            StopIteration: there is none.
            BaseException: it could not be made.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.ready or self.ended)
            if self.ready:
                self.wanted += 1
                self.changed.notify_all()
                return self.ready.popleft()
            if self.error is None:
                raise StopIteration
            error, self.error = self.error, None
        raise error

    def close(self) -> None:
        """End the thread, and wait for it: whoever closes may end what it reads from, such as Ray.

        It first ends what it does now. If its source does not answer, it is left to itself.
        """
        with self.changed:
            self.closed = True
            self.ready.clear()
            self.changed.notify_all()
        self.thread.join(END_WITHIN_S)
        if self.thread.is_alive():
            log.warning("reading ahead has not ended within %.0f s", END_WITHIN_S)

    def _work(self) -> None:
        error = None
        try:
            with contextlib.closing(self.items):
                while self._may_go_on() and (item := next(self.items, None)) is not None:
                    made = self.make_ready(item)
                    with self.changed:
                        if not self.closed:
                            self.ready.append(made)
                        self.changed.notify_all()
                    del item, made  # here they would live on while the thread waits
        except BaseException as raised:  # noqa: BLE001  # raised again where the item is taken
            error = raised
        with self.changed:
            self.error = error
            self.ended = True
            self.changed.notify_all()
            if error is not None and self.closed:  # nobody takes an item any more
                log.info("reading ahead failed after its stream was closed: %r", error)

    def _may_go_on(self) -> bool:
        """Wait until the next item is wanted; tell whether it still is."""
        with self.changed:
            self.changed.wait_for(lambda: self.wanted or self.closed)
            self.wanted -= 1
            return not self.closed


@dataclass(frozen=True)
class Shipment:
    """A micro-batch on its way to the device.

    Attributes:
        batch: its tensors on the device, which may still be written to.
        arrival: where on a GPU the writing ends; None on a CPU, where it has ended.
    """

    batch: TtsBatch
    arrival: torch.cuda.Event | None

    def received(self) -> TtsBatch:
        """Return the batch for the present CUDA stream of this thread, which waits for it."""
        if self.arrival is not None:
            here = torch.cuda.current_stream(self.batch.y.device)
            here.wait_event(self.arrival)
            for tensor in self.batch.on_device():
                # its memory may be used again only when this stream is through with it
                tensor.record_stream(here)
        return self.batch


class Courier:
    """Brings micro-batches to a device, with their spectrograms."""

    def __init__(self, device: torch.device, data: DataConfig):
        """Open a CUDA stream on a GPU.

        Args:
            device: where to.
            data: parameters of the STFT, and what `TtsBatch.bert_features` reads.
        """
        self.device = device
        self.data = data
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def ship(self, arrays: Mapping[str, np.ndarray]) -> Shipment:
        """Send the arrays of `collate` to the device; on a GPU, without waiting for it."""
        if self.stream is None:
            return Shipment(self._on_device(arrays), None)
        # also makes this thread's device the stream's
        with torch.cuda.stream(self.stream):
            return Shipment(self._on_device(arrays), self.stream.record_event())

    def _on_device(self, arrays: Mapping[str, np.ndarray]) -> TtsBatch:
        batch = to_batch(arrays, pin=self.stream is not None, bert_config=self.data.bert)
        return batch.to(self.device).with_spectrogram(self.data)
