"""Whether a machine or cluster is fit for a run: `python -m job.doctor --config C [--section.key VALUE ...]`.

Looks at every node that is up, and prints what it found, one check a line, with what to do about
what is wrong. Ends with status 1 where something would stop the run, so that it can stand before
`job.train` in a job.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ray
from packaging.requirements import Requirement
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data.shards.manifest import ManifestError, read_manifest
from job.on_ray import probes
from job.on_ray.cluster import on_cluster, ray_session
from job.on_ray.probes import NodeReport
from job.reports.console import table
from job.settings.cli import parse, parser, run
from job.settings.config import Config
from job.settings.paths import run_folder, with_absolute_paths
from job.train import check
from trainable.settings import check_fits

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
# those whose versions decide whether nodes understand each other, and which numbers come out
PACKAGES = ("ray", "torch", "torchaudio", "transformers", "numpy", "pyarrow", "safetensors", "s3fs")
DRIVER = 580  # the oldest major version for CUDA 13
SLOW_STORAGE = 20e6  # bytes a second: a checkpoint of the full model, 1.3 GB, then takes a minute
CLOCKS_WITHIN_S = 2.0
DISK, MEMORY, SHARED_MEMORY = 10e9, 4e9, 1e9  # bytes a node should have free
NODES_WITHIN_S = 120

State = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Check:
    """A line of the table.

    Attributes:
        name: what was looked at.
        state: `FAIL` would stop a run, `warn` would make it slower or break it later.
        found: what there is.
        fix: what to do; empty where all is well.
    """

    name: str
    state: State
    found: str
    fix: str = ""


def main(argv: Sequence[str]) -> int:
    """The command."""
    cfg, _ = parse(
        parser("python -m job.doctor", "Whether a machine or cluster is fit for a run."), argv
    )
    checks = examine(with_absolute_paths(cfg))
    rows = [(c.name, c.state, c.found) for c in checks]
    print(table(("check", "state", "found"), rows))
    for c in checks:
        if c.fix:
            print(f"{c.name}: {c.fix}")
    failed = [c.name for c in checks if c.state == "FAIL"]
    print(f"not fit: {', '.join(failed)}" if failed else "fit")
    return 1 if failed else 0


def examine(cfg: Config) -> list[Check]:
    """All checks, of the configuration and of every node that is up."""
    with ray_session(cfg):
        reports, skew = ask_nodes(cfg)
        return [
            *configuration(cfg),
            *versions(reports),
            *gpus(cfg, reports),
            *storage(cfg, reports),
            clocks(skew),
            *room(reports),
            cpus_for_data(cfg, ray.cluster_resources()),
            connections([node["NodeID"] for node in _alive()]),
        ]


def _alive() -> list[dict]:
    return [node for node in ray.nodes() if node["Alive"]]


def _on(node_id: str) -> dict:
    """Options of a task that runs on that node, and takes none of its resources."""
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
    }


def ask_nodes(cfg: Config) -> tuple[list[NodeReport], dict[str, float]]:
    """The nodes' reports, and by how many seconds the clock of each is ahead of this one's."""
    look, reports, skew = ray.remote(probes.look), [], {}
    for node in _alive():
        asked = time.time()
        task = look.options(**_on(node["NodeID"])).remote(PACKAGES, cfg.run.storage)
        report = ray.get(task, timeout=NODES_WITHIN_S)
        answered = time.time()
        reports.append(report)
        # it looked at its clock at some time in between
        skew[report.node] = max(report.time - answered, 0.0) + min(report.time - asked, 0.0)
    return reports, skew


def configuration(cfg: Config) -> Iterator[Check]:
    """Whether the settings fit each other, and the shards."""
    try:
        check(cfg)
        yield Check("configuration", "ok", f"run {run_folder(cfg)}")
    except ValueError as error:
        yield Check("configuration", "FAIL", "settings do not fit each other", str(error))
    try:
        manifest = read_manifest(cfg.data.shards)
        check_fits(cfg.data, cfg.model, manifest)
        hours, speakers = manifest.header["hours"], len(manifest.speakers)
        yield Check(
            "shards",
            "ok",
            f"{manifest.table.num_rows} utterances, {hours:.1f} h, {speakers} speakers",
        )
    except ManifestError as error:
        # job.train prepares what is missing
        state: State = "warn" if cfg.data.transcript else "FAIL"
        yield Check("shards", state, f"{cfg.data.shards}: none that can be used", str(error))
    except (ValueError, OSError) as error:
        yield Check("shards", "FAIL", f"{cfg.data.shards}: do not fit the settings", str(error))


def versions(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Whether the packages are those of the lock, and the same on all nodes."""
    lock = [
        Requirement(line) for line in LOCK.read_text().splitlines() if line and line[0] not in " #"
    ]
    pins = {
        r.name: str(r.specifier).lstrip("=")
        for r in lock
        if r.marker is None or r.marker.evaluate()
    }
    wrong = sorted(
        {
            f"{name} {has} instead of {pins[name]} on {r.node}"
            for r in reports
            for name, has in r.versions.items()
            if name in pins and has.split("+")[0] != pins[name]
        }
    )
    yield Check(
        "packages",
        "warn" if wrong else "ok",
        "; ".join(wrong) or f"as locked on {len(reports)} nodes",
        "use the image of this version, or `make venv`" if wrong else "",
    )
    pythons = {r.versions["python"] for r in reports}
    yield Check(
        "python",
        "ok" if len(pythons) == 1 else "FAIL",
        ", ".join(sorted(pythons)),
        "" if len(pythons) == 1 else "all nodes need the same Python: start them from one image",
    )


def gpus(cfg: Config, reports: Sequence[NodeReport]) -> Iterator[Check]:
    """GPUs, driver and NCCL, where the run wants them."""
    nodes = [r for r in reports if r.gpus]
    found = ", ".join(f"{len(r.gpus)} x {r.gpus[0]} on {r.node}" for r in nodes) or "none"
    blind = [r.node for r in reports if r.driver and not r.gpus]
    old = [r for r in reports if r.driver and int(r.driver.split(".")[0]) < DRIVER]
    if cfg.scaling.device == "cpu":
        yield Check("GPU", "ok", "not wanted (scaling.device is cpu)")
    elif old:
        drivers = ", ".join(sorted({r.driver for r in old}))
        yield Check(
            "GPU",
            "FAIL",
            f"driver {drivers}",
            f"CUDA 13 needs a driver of {DRIVER} or newer: change the machine's image",
        )
    elif blind:
        yield Check(
            "GPU",
            "FAIL",
            f"torch sees none on {', '.join(blind)}",
            "start the container with its GPUs (--gpus all, nvidia's runtime), and torch as locked",
        )
    elif nodes:
        yield Check("GPU", "ok", found)
        yield Check("driver, NCCL", "ok", f"{nodes[0].driver}, {nodes[0].nccl}")
    elif cfg.scaling.device == "cuda" and on_cluster():
        yield Check("GPU", "ok", "none yet: waits for the autoscaler")
    elif cfg.scaling.device == "cuda":
        yield Check(
            "GPU",
            "FAIL",
            found,
            "scaling.device is cuda: set it to auto or cpu, or use a machine with a GPU",
        )
    else:
        yield Check("GPU", "ok", f"{found}: trains on the CPU")


def storage(cfg: Config, reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Whether every node can write to run.storage and read from it, and how fast."""
    uri = cfg.run.storage
    failed = [f"{r.node}: {r.storage_error}" for r in reports if r.storage_error]
    if failed:
        yield Check(
            "storage",
            "FAIL",
            f"{uri}: {len(failed)} of {len(reports)} nodes cannot use it",
            f"{'; '.join(failed)}. Give the nodes' role read, write and delete there",
        )
        return
    write = min(probes.STORAGE_BYTES / r.write_s for r in reports if r.write_s)
    read = min(probes.STORAGE_BYTES / r.read_s for r in reports if r.read_s)
    slow = min(write, read) < SLOW_STORAGE
    yield Check(
        "storage",
        "warn" if slow else "ok",
        f"{uri}: writes {write / 1e6:.0f} MB/s, reads {read / 1e6:.0f} MB/s",
        "slow: use a bucket in the nodes' region, or save less often (train.checkpoint.every_steps)"
        if slow
        else "",
    )
    if "://" not in uri and len(reports) > 1:
        yield Check(
            "storage is shared",
            "warn",
            f"{uri} is a folder of each node",
            "set run.storage to s3://... or gs://..., unless all nodes mount this folder",
        )


def clocks(skew: dict[str, float]) -> Check:
    """Whether the nodes' clocks agree: object stores refuse requests of others, and logs lie."""
    worst = max(map(abs, skew.values()))
    fine = worst <= CLOCKS_WITHIN_S
    far = ", ".join(node for node, seconds in skew.items() if abs(seconds) > CLOCKS_WITHIN_S)
    return Check(
        "clock",
        "ok" if fine else "warn",
        f"within {worst:.1f} s",
        "" if fine else f"set the clock of {far}: chronyd or systemd-timesyncd",
    )


def room(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Free disk and memory of the node that has least."""
    for name, attribute, enough, fix in (
        (
            "disk",
            "free_disk",
            DISK,
            "give the nodes a larger disk, or clear Ray's temporary folder",
        ),
        (
            "memory",
            "free_memory",
            MEMORY,
            "use larger machines, fewer data.loaders or a lower data.plan.max_frames",
        ),
        (
            "/dev/shm",
            "shared_memory",
            SHARED_MEMORY,
            "start containers with --shm-size=8g or an emptyDir of Memory",
        ),
    ):
        least = min(reports, key=lambda r: getattr(r, attribute))
        has = getattr(least, attribute)
        fine = has >= enough
        yield Check(
            name,
            "ok" if fine else "warn",
            f"{has / 1e9:.1f} GB free on {least.node}",
            "" if fine else fix,
        )


def cpus_for_data(cfg: Config, resources: dict[str, float]) -> Check:
    """Whether the workers leave a CPU for the loaders, without which Ray Data waits for ever."""
    low, _ = cfg.scaling.bounds
    cpus, wanted = resources.get("CPU", 0), low * cfg.scaling.cpus_per_worker + 1
    missing = [
        name
        for name, amount in cfg.scaling.loader_resources.items()
        if resources.get(name, 0) < amount
    ]
    if cpus >= wanted and not missing:
        return Check("CPUs for data", "ok", f"{cpus - wanted + 1:g} beside those of {low} workers")
    found = f"{cpus:g} CPUs, {wanted:g} wanted" + (f"; no {', '.join(missing)}" if missing else "")
    fix = (
        "lower scaling.num_workers or scaling.cpus_per_worker, or take scaling.loader_resources out"
    )
    if on_cluster():
        return Check(
            "CPUs for data",
            "warn",
            found,
            f"nothing, where the autoscaler starts such nodes; else {fix}",
        )
    return Check("CPUs for data", "FAIL", found, fix)


def connections(nodes: Sequence[str]) -> Check:
    """Whether all nodes reach a port of each other's, as gloo, NCCL and Ray's object store must."""
    listener, task = ray.remote(probes.Listener), ray.remote(probes.unreachable)
    listeners = [listener.options(**_on(node)).remote() for node in nodes]
    asked = [one.address.remote() for one in listeners]  # type: ignore[attr-defined]
    addresses = ray.get(asked, timeout=NODES_WITHIN_S)
    failed = ray.get(
        [task.options(**_on(node)).remote(addresses) for node in nodes], timeout=NODES_WITHIN_S
    )
    apart = [
        f"{here[0]} cannot reach {there}"
        for here, found in zip(addresses, failed, strict=True)
        for there in found
    ]
    return Check(
        "ports",
        "FAIL" if apart else "ok",
        "; ".join(apart) or f"{len(nodes)} nodes reach each other",
        "open all ports between the nodes: one security group, or no NetworkPolicy between them"
        if apart
        else "",
    )


if __name__ == "__main__":
    run(main)
