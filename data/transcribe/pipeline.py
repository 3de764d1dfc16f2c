"""The work on Ray Data: recordings are cut on CPUs, slices recognised by actors, on GPUs if any.

A row holds one item as JSON. Slices of all recordings meet in the batches of the recognisers, and
each result comes back as soon as it is there.
"""

import json
import logging
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from data.config import DataConfig
from data.corpus.on_ray.blocks import TASK_CPUS, model_resources, wait_for_room
from data.corpus.on_ray.limits import time_limit
from data.files import is_local
from data.rejected import Reason, RejectedError
from data.transcribe.attempts import Attempts, DiedError
from data.transcribe.command import CommandRecogniser
from data.transcribe.cutting import Cutter, rejected
from data.transcribe.hearing import hear_slices
from data.transcribe.recogniser import Heard, Recogniser, Sound, load_recogniser
from data.transcribe.records.listing import Source
from data.transcribe.work import WHOLE, TranscriptionError, of_hearing

# Ray Data's executor remembers some kB of each block
BLOCKS = 1600

Item = Mapping[str, Any]
Batch = dict[str, np.ndarray]


def results_of(cfg: DataConfig, out: str, items: Collection[Item]) -> Iterator[dict[str, Any]]:
    """Do the work of items; yield results for the journal. Ray must have been started.

    Args:
        cfg: the configuration.
        out: folder or URI that slices are written below.
        items: as data.transcribe.work makes them.

    Raises:
        TranscriptionError: what concerns all items: a store, the recogniser.
    """
    # a command brings what it needs
    cpus, gpus, actors = model_resources(
        "the recogniser", cfg.asr.gpus_per_actor, needs_torch=cfg.asr.command is None
    )
    dataset = _dataset([json.dumps(item) for item in items])
    run = uuid.uuid4().hex
    if any("cut" in item for item in items):
        cutters = max(1, int(ray.cluster_resources().get("CPU", 0)) - int(cpus))
        dataset = dataset.map_batches(
            CuttingActor,
            fn_constructor_args=(cfg, out, run),
            batch_size=None,
            num_cpus=TASK_CPUS,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(cutters, len(items))),
        )
    dataset = dataset.map_batches(
        HearingActor,
        fn_constructor_args=(
            *(cfg, "cuda" if gpus else "cpu", str(Path.cwd())),
            Attempts(out, run),
        ),
        batch_size=cfg.asr.batch,
        num_cpus=cpus,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
    )
    for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
        yield from map(_checked, batch["item"])


def _checked(item: str) -> dict[str, Any]:
    result = json.loads(item)
    if "failed" in result:
        raise TranscriptionError(f"{result['failed']}. The same command goes on from here")
    return result


def _dataset(items: list[str]) -> ray.data.Dataset:
    wait_for_room("CPU", 1)
    rows = [{"item": item} for item in items]
    dataset = ray.data.from_items(rows, override_num_blocks=min(len(items), BLOCKS))
    context = dataset.context
    # a block per row, each as soon as it is there
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # it warns that there are no bars
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    return dataset


class CuttingActor:
    """Cuts the recordings among items; others pass.

    Args:
        cfg: the configuration.
        out: folder or URI that slices are written below.
        run: name of this run, for its attempts.
    """

    def __init__(self, cfg: DataConfig, out: str, run: str) -> None:
        self.cfg = cfg
        self.cutter = Cutter(cfg, out)
        self.out = out
        self.attempts = Attempts(out, run)

    def __call__(self, batch: Batch) -> Iterator[Batch]:
        """Yield the result of each recording, and its slices as items."""
        for item in map(json.loads, batch["item"]):
            if "cut" not in item:
                yield _rows([item])
                continue
            source = Source(**item["cut"])
            try:
                cut = self._cut(source)
            except (OSError, ValueError, ImportError) as error:
                yield _rows([{"failed": str(error)}])
                return
            yield _rows([{"cut": cut}])
            numbers = range(1, len(cut["slices"]) + 1)
            for number in sorted(set(numbers) - set(item["heard"])):
                yield _rows([of_hearing(source, number, self.out)])

    def _cut(self, source: Source) -> dict[str, Any]:
        """Cut a recording, unless it has ended processes of this run before."""
        self.cutter.load()
        waits = not (is_local(source.uri) and is_local(self.out))
        try:
            with (
                self.attempts.attempt(source.name),
                time_limit(self.cfg.line_timeout_s, waits) as goes_on,
            ):
                return self.cutter(source, goes_on)
        except DiedError as error:
            return rejected(source, RejectedError(Reason.CRASHED, str(error)))


class HearingActor:
    """Recognises the slices among items; others pass.

    Args:
        cfg: the configuration.
        device: where the recogniser runs.
        folder: where a command runs.
        attempts: of this run.
    """

    def __init__(self, cfg: DataConfig, device: str, folder: str, attempts: Attempts) -> None:
        self.cfg = cfg
        self.attempts = attempts
        self.folder = folder
        self.device = device
        self.recogniser: Recogniser | None = None

    def __call__(self, batch: Batch) -> Batch:
        """Return results in place of slices."""
        items = [json.loads(item) for item in batch["item"]]
        slices = [item["hear"] for item in items if "hear" in item]
        others = [item for item in items if "hear" not in item]
        try:
            heard = self._hear(slices) if slices else []
        except DiedError as error:
            uris = f"{slices[0]['uri']} and the {len(slices) - 1} slices after it"
            return _rows([*others, {"failed": f"the recogniser, at {uris}: {error}"}])
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            # RuntimeError: torch's, of memory among others
            return _rows([*others, {"failed": " ".join(str(error).split())}])
        return _rows([*others, *({"heard": each} for each in heard)])

    def _hear(self, slices: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if slices[0]["number"] == WHOLE:
            return hear_slices(slices, self.cfg, self._attempt, self._guarded)
        # what was cut here is decoded without danger
        with self.attempts.attempt(slices[0]["uri"]):
            return hear_slices(slices, self.cfg, self._recognise)

    @contextmanager
    def _guarded(self, uri: str) -> Iterator[None]:
        """Let a recording be decoded, unless it has ended processes of this run before."""
        try:
            with (
                self.attempts.attempt(f"decodes {uri}"),
                time_limit(self.cfg.line_timeout_s, waits=not is_local(uri)),
            ):
                yield
        except DiedError as error:
            raise RejectedError(Reason.CRASHED, str(error)) from error

    def _attempt(self, sounds: Sequence[Sound]) -> list[Heard]:
        with self.attempts.attempt(sounds[0].uri):
            return self._recognise(sounds)

    def _recognise(self, sounds: Sequence[Sound]) -> list[Heard]:
        return self._recogniser()(sounds)

    def _recogniser(self) -> Recogniser:
        if self.recogniser is None:
            asr = self.cfg.asr
            by_command = asr.command is not None
            self.recogniser = (
                CommandRecogniser(asr, self.folder)
                if by_command
                else load_recogniser(asr, self.device)
            )
        return self.recogniser


def _rows(items: list[Any]) -> Batch:
    return {"item": np.array([json.dumps(item) for item in items], dtype=object)}
