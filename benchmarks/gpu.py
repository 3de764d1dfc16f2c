"""All that is to be known of a GPU in one command: `python -m benchmarks.gpu --minutes 9 --json F`.

It needs torch and a GPU, and no Ray. Stage by stage it looks whether the reference trainer's steps
come out on the device, whether bits repeat, how fast the step is beside the reference's work in
each precision, how many kernels it launches beside the count of benchmarks.launches, what fits the
memory, and how fast micro-batches arrive. After each stage the file holds what is known so far; the
stage in which the time is up is named there. `--device cpu --tiny` goes through all stages with
small networks, where only a GPU can answer with nothing.
"""

import argparse
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.gpu_stages import FULL, MODES, TINY, Bench, Found, stages
from job.reports.console import cell, table


class Record:
    """What is known so far, in a file that is whole at any time.

    Args:
        file: where it is written; None: nowhere.
    """

    def __init__(self, file: Path | None):
        self.file = file
        self.found: dict[str, Found] = {}
        self.running = ""
        self.lock = threading.Lock()

    def write(self) -> None:
        """Write the file."""
        if self.file is None:
            return
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        part.replace(self.file)

    def run(self, name: str, stage: Callable[[Bench], Found], bench: Bench) -> None:
        """Run a stage; what goes wrong is its finding, and the others are run."""
        print(f"{name} ...", flush=True)
        self.running = name
        began = time.monotonic()
        try:
            found = stage(bench)
        except Exception as error:  # noqa: BLE001  # whatever it is, the other stages tell more
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        with self.lock:
            self.found[name] = found | {"seconds": time.monotonic() - began}
            self.write()

    def end(self) -> None:
        """Name the stage in which the time was up, and end the process."""
        with self.lock:
            self.found[self.running] = {"error": "the time was up"}
            self.write()
            print(f"the time was up in: {self.running}", flush=True)
            os._exit(0)


def speed_table(found: Mapping[str, Found]) -> str:
    """Return the stages of speed as a table."""
    speeds = ("steps_per_s", "as_reference_steps_per_s", "ratio")
    columns = (*speeds, "peak_gib", "as_reference_peak_gib", "mfu")
    rows = [
        [mode, *(cell(own.get(column, float("nan")), ".3g") for column in columns)]
        for mode in MODES
        if (own := found.get(f"speed {mode}"))
    ]
    return table(["", *columns], rows, align_right=True)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    made.add_argument("--device", default="cuda", help="cuda or cpu")
    made.add_argument("--minutes", type=float, default=9.0, help="when to end, done or not")
    made.add_argument("--threads", type=int, default=4)
    made.add_argument("--tiny", action="store_true", help="small networks, to try the command")
    made.add_argument("--stages", nargs="+", choices=stages(), help="these alone; default: all")
    made.add_argument("--json", type=Path, help="write the figures, after each stage")
    return made


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    made = command_line()
    args = made.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        made.error("torch finds no GPU here: give --device cpu --tiny")
    if args.device == "cpu" and not args.tiny:
        made.error("the full model takes a CPU hours: give --tiny")
    bench = Bench(torch.device(args.device), TINY if args.tiny else FULL, args.threads)
    record = Record(args.json)
    clock = threading.Timer(60 * args.minutes, record.end)
    clock.daemon = True
    clock.start()
    for name, stage in stages().items():
        if args.stages and name not in args.stages:
            continue
        record.run(name, stage, bench)
    clock.cancel()
    print(json.dumps(record.found, indent=1))
    print(speed_table(record.found))


if __name__ == "__main__":
    main()
