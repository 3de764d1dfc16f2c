"""One loss curve for any number of workers: `python -m benchmarks.elastic [--steps 60]`.

It trains the demo preset (fp32) through real Ray: exact on 1, 2 and 3 workers, exact under kills
and resizes (2 -> 1 -> 3 -> 2 workers, between checkpoints), fast on 1 worker and twice on 2; it
compares every loss, parameter and optimizer state with one worker's. It times exact beside fast on
two processes, step by step in turn, and compares AdamW's updates with those of gradients that are
averaged in float64.
"""

import argparse
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.reductions import DEMO, overhead, update_error
from trainable.run.format import read_info
from trainable.run.storage import newest_good

# workers of each stage; the last stage is not killed but loses a worker, which Ray restarts
STAGES = (2, 1, 3, 2)
CHECKPOINT_EVERY = 7


class Runs:
    """Runs of the demo preset in a folder of their own.

    Args:
        root: the folder.
        steps: global steps of each run.
    """

    def __init__(self, root: Path, steps: int):
        self.root = root
        self.steps = steps
        self.env = os.environ | {
            "BERT_VITS2_RAY_TMP": str(root / "ray"),
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.shards = root / "shards"
        prepare = ["--config", str(DEMO), "--data.shards", str(self.shards)]
        self.command("job.prepare", *prepare).check()

    def command(self, module: str, *argv: str) -> "Process":
        """Start a command."""
        log = self.root / f"{time.monotonic_ns()}.log"
        return Process([sys.executable, "-m", module, *argv], self.env, log)

    def train(self, name: str, workers: int, reduction: str) -> "Process":
        """Start or continue a run."""
        options = {
            "data.shards": self.shards,
            "run.storage": self.root / "runs",
            "run.name": name,
            "scaling.num_workers": workers,
            "train.reduction": reduction,
            "train.max_steps": self.steps,
            "train.log_every_steps": 1,
            "train.checkpoint.every_steps": CHECKPOINT_EVERY,
            "eval.every_steps": 1000,
            "eval.samples": 0,
        }
        argv = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        return self.command("job.train", "--config", str(DEMO), *argv)

    def folder(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.root / "runs" / name

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the steps of a run as its metrics have them, in order."""
        path = self.folder(name) / "metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def disturbed(self, name: str) -> dict[str, int]:
        """Train with SIGKILLs and another number of workers after each; return how many of both."""
        ends = [round(self.steps * (i + 1) / len(STAGES)) for i in range(len(STAGES))]
        ends = [end + (end % CHECKPOINT_EVERY == 0) for end in ends]  # not on a checkpoint
        for workers, end in zip(STAGES[:-1], ends, strict=False):
            process = self.train(name, workers, "exact")
            self.wait(name, end, process)
            process.kill()
        process = self.train(name, STAGES[-1], "exact")
        self.wait(name, ends[-2] + 3, process)
        pids = re.findall(
            r"pid (\d+) on", (self.folder(name) / "logs/rank-1.log").read_text(encoding="utf-8")
        )
        os.kill(int(pids[-1]), signal.SIGKILL)
        process.check()
        return {"resizes": len(STAGES) - 1, "kills": len(STAGES)}

    def wait(self, name: str, step: int, process: "Process") -> None:
        """Wait until a run has recorded a step."""
        while not (lines := self.lines(name)) or lines[-1]["step"] < step:
            process.alive()
            time.sleep(0.1)


class Process:
    """A command whose output goes to a file."""

    def __init__(self, argv: list[str], env: Mapping[str, str], log: Path):
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(argv, env=env, stdout=out, stderr=subprocess.STDOUT)

    def check(self) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: it failed; with the end of its output.
        """
        if self.process.wait():
            raise RuntimeError(
                f"{self.log.name} failed:\n{self.log.read_text(encoding='utf-8')[-3000:]}"
            )

    def alive(self) -> None:
        """Refuse a process that has ended.

        Raises:
            RuntimeError: it has; with the end of its output.
        """
        if self.process.poll() is not None:
            raise RuntimeError(
                f"{self.log.name} ended early:\n{self.log.read_text(encoding='utf-8')[-3000:]}"
            )

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()


def losses(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a step must not depend on the number of workers."""
    return {key: value for key, value in line.items() if key.startswith(("loss/", "grad_norm"))}


def utterances(lines: list[dict]) -> list:
    """Return what each step consumed."""
    return [(line["step"], line["consumed"]) for line in lines]


def final_state(folder: Path) -> tuple[int, dict[str, torch.Tensor]]:
    """Return the last step of a run, and all tensors of its newest checkpoint: name -> tensor."""
    newest = newest_good(str(folder))
    assert newest is not None
    tensors: dict[str, torch.Tensor] = {}
    for path in Path(newest).glob("*.safetensors"):
        tensors |= {f"{path.stem}.{key}": value for key, value in load_file(path).items()}
    training = torch.load(Path(newest) / "training.pt", weights_only=True)
    for name, moments in training["moments"].items():
        tensors |= {
            f"{name}.{key}.{kind}": t for key, entry in moments.items() for kind, t in entry.items()
        }
    return read_info(Path(newest)).position.step, tensors


def equal(a: Any, b: Any) -> bool:
    """Return whether two things are equal in every bit; NaN (no such loss) equals NaN."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return a == b or (
        isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    )


def compare_exact(runs: Runs, names: list[str]) -> dict[str, Any]:
    """Compare every run with the first."""
    lines = {name: runs.lines(name) for name in names}
    states = {name: final_state(runs.folder(name)) for name in names}
    first = names[0]
    same = {
        name: equal([losses(line) for line in lines[name]], [losses(line) for line in lines[first]])
        and equal(states[name][1], states[first][1])
        for name in names
    }
    return {
        "bit_identical": all(same.values()),
        "same_final_step": {step for step, _ in states.values()} == {runs.steps},
        "same_utterances": all(
            utterances(lines[name]) == utterances(lines[first]) for name in names
        ),
        "runs": same,
        "tensors": len(states[first][1]),
    }


def relative(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return the largest relative difference of any loss of a step."""
    pairs = [(a[key], b[key]) for key in a if key.startswith("loss/") and a[key] is not None]
    different = [(x, y) for x, y in pairs if x != y and not math.isnan(x)]
    return max((abs(x - y) / max(abs(x), abs(y)) for x, y in different), default=0.0)


def compare_fast(one: list[dict], two: list[dict]) -> dict[str, float]:
    """Return how far fast runs are from each other."""
    each = [relative(a, b) for a, b in zip(one, two, strict=True)]
    return {"max_rel_loss_diff_step_1": each[0], "max_rel_loss_diff": max(each)}


def compare_all(runs: Runs) -> dict[str, Any]:
    """Train on 1, 2 and 3 workers, exact and fast, and disturbed; compare the runs."""
    for workers in (1, 2, 3):
        runs.train(f"exact{workers}", workers, "exact").check()
        print(f"exact on {workers} workers: done", flush=True)
    events = runs.disturbed("disturbed")
    print(f"disturbed {events}: done", flush=True)
    exact = compare_exact(runs, ["exact1", "exact2", "exact3", "disturbed"])

    for name, workers in (("fast1", 1), ("fast2", 2), ("fast2again", 2)):
        runs.train(name, workers, "fast").check()
    fast = compare_fast(runs.lines("fast1"), runs.lines("fast2"))
    again = compare_exact(runs, ["fast2", "fast2again"])["bit_identical"]
    return {"exact": exact | events, "fast": fast | {"same_bits_again": again}}


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.elastic", description=__doc__)
    made.add_argument("--steps", type=int, default=60)
    made.add_argument("--json", type=Path, help="write the figures")
    made.add_argument(
        "--overhead-only", action="store_true", help="time exact beside fast, and train nothing"
    )
    args = made.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bvr-"))  # Ray's sockets need short paths
    try:
        runs = Runs(root, args.steps)
        result: dict[str, Any] = overhead(runs.shards)
        print(f"exact beside fast, W = 2: {result}", flush=True)
        result["update_error"] = update_error(runs.shards)
        print(f"updates beside float64's: {result['update_error']}", flush=True)
        if not args.overhead_only:
            result |= compare_all(runs)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
