"""What a report to Ray costs the training: `python -m benchmarks.reports [--json FILE]`.

Workers on this machine, joined by gloo, report as they do at a line of the log, after steps of
`--step-s` seconds in which they only sleep. Half of the reports come while a checkpoint is being
written, which takes longer than all of them: they must not wait for it.

- report_s, report_s_worst: seconds of a report on rank 0, in the middle and at most.
- report_s_while_saving, report_s_while_saving_worst: the same while a checkpoint is written.
- reported: share of the reports that Ray was given.
"""

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import ray.train
from ray.train.torch import TorchConfig

# the class that ray.train.torch holds at run time; by this path, mypy knows it too
from ray.train.v2.torch.torch_trainer import TorchTrainer

from job.on_ray.cluster import ray_session
from job.on_ray.private import RunConfig, ScalingConfig
from job.on_ray.training import worker_config
from job.settings.cli import overridden, read_config
from trainable.distributed.collectives import all_gather
from trainable.run.format import checkpoint_name
from trainable.worker.config import WorkerConfig
from trainable.worker.ray_worker import RayWorker

DEMO = Path("job/presets/demo.yaml")
METRICS = {f"loss/{number}": 0.5 for number in range(60)}
SETTLE_S = 3.0  # before the first one, for what starts beside


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """Report again and again; called on each worker."""
    told: WorkerConfig = config["worker"]
    worker = RayWorker(told)
    counted = Mock(wraps=ray.train.report)
    time.sleep(SETTLE_S)
    with patch("ray.train.report", counted):
        alone = _timed(worker, config)
        worker.report_checkpoint(checkpoint_name(1), METRICS, partial(_slow, config), wait=False)
        beside = _timed(worker, config)
    return {
        "report_s": statistics.median(alone),
        "report_s_worst": max(alone),
        "report_s_while_saving": statistics.median(beside),
        "report_s_while_saving_worst": max(beside),
        "reported": (counted.call_count - 1) / (2 * config["reports"]),
    }


def _slow(config: dict[str, Any]) -> str:
    """Be a checkpoint whose writing outlasts all reports; return its name."""
    time.sleep(config["reports"] * config["step_s"] * 2 + SETTLE_S)
    return checkpoint_name(1)


def _timed(worker: RayWorker, config: dict[str, Any]) -> list[float]:
    """Return the seconds of each report, before which the ranks have met as after a step."""
    taken = []
    for _ in range(config["reports"]):
        time.sleep(config["step_s"])
        all_gather(worker.rank)
        begin = time.perf_counter()
        worker.report_progress(METRICS)
        taken.append(time.perf_counter() - begin)
    return taken


def run(workers: int, reports: int, step_s: float) -> dict[str, Any]:
    """Return what rank 0 measures.

    Args:
        workers: how many report.
        reports: how many reports are timed, alone and while a checkpoint is written.
        step_s: seconds from one to the next.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg = overridden(read_config(DEMO), {"run.storage": folder, "scaling.num_workers": workers})
        with ray_session(cfg):
            trainer = TorchTrainer(
                measure,
                train_loop_config={
                    "worker": worker_config(cfg, owner=""),
                    "reports": reports,
                    "step_s": step_s,
                },
                scaling_config=ScalingConfig(num_workers=workers),
                torch_config=TorchConfig("gloo"),
                run_config=RunConfig(name="reports", storage_path=folder),
            )
            return trainer.fit().return_value  # type: ignore[attr-defined]  # V2's


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.reports", description=__doc__)
    made.add_argument("--workers", type=int, default=2)
    made.add_argument("--reports", type=int, default=20)
    made.add_argument("--step-s", type=float, default=1.0)
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    result = {"workers": args.workers, **run(args.workers, args.reports, args.step_s)}
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
