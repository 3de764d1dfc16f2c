"""Work of several processes at once, as the workers of a run are."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

# imported once, by the server from which every process is forked; it runs nothing else, so that no
# threads are lost on the way
PRELOADED = [
    "tests.tiny",
    "trainable.learning.step",
    "trainable.evaluation.evaluate",
    "transformers.models.wavlm.modeling_wavlm",  # which networks import when they are built
    "tests.frozen",
]


def run_in_processes(work: Callable[..., None], *arguments: Any, count: int) -> None:
    """Run `work(rank, *arguments)` in `count` processes; raise what one of them raises."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    mp.start_processes(work, arguments, count, daemon=True, start_method="forkserver")
