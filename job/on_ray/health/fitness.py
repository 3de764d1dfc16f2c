"""Whether machines and settings are fit for a run: a check turns what was found into a verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from data.files import is_local
from data.shards.manifest import ManifestError
from job.on_ray.cluster import on_cluster, require_gpu
from job.on_ray.health import probes
from job.on_ray.health.probes import NodeReport
from job.settings.checks import check, trainable_manifest
from job.settings.config import Config
from job.settings.paths import run_folder
from trainable.model_config import ModelConfig

LOCK = Path(__file__).resolve().parents[3] / "requirements.lock"
# their versions decide whether nodes understand each other, and which numbers come out
PACKAGES = ("ray", "torch", "torchaudio", "transformers", "numpy", "pyarrow", "safetensors", "s3fs")
DRIVER = 580  # the oldest major version for CUDA 13
SLOW_STORAGE = 20e6  # bytes/s: a checkpoint of the full model, 1.3 GB, then takes a minute
CLOCKS_WITHIN_S = 2.0

# (name, attribute of NodeReport, bytes that a node should have free, what to do)
FREE = (
    ("disk", "free_disk", 10e9, "give the nodes a larger disk, or clear Ray's temporary folder"),
    (
        "memory",
        "free_memory",
        4e9,
        "use larger machines, fewer data.loaders or a lower data.plan.max_frames",
    ),
    (
        "/dev/shm",
        "shared_memory",
        1e9,
        "start containers with --shm-size=8g or an emptyDir of Memory",
    ),
)

State = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Check:
    """A verdict on one subject.

    Attributes:
        name: what was looked at.
        state: `FAIL` would stop a run, `warn` would slow it down or break it later.
        found: what there is.
        fix: what to do; empty if all is well.
    """

    name: str
    state: State
    found: str
    fix: str = ""


def verdict(name: str, fine: bool, found: str, fix: str, otherwise: State = "warn") -> Check:
    """Return a check that is `ok` if all is fine, else `otherwise` with what to do.

    Args:
        name: what was looked at.
        fine: whether all is well.
        found: what there is.
        fix: what to do if not.
        otherwise: the state if not.
    """
    return Check(name, "ok", found) if fine else Check(name, otherwise, found, fix)


def configuration(cfg: Config) -> Iterator[Check]:
    """Check whether the settings fit each other, and the shards."""
    try:
        check(cfg)
        yield Check("configuration", "ok", f"run {run_folder(cfg)}")
    except ValueError as error:
        yield Check("configuration", "FAIL", "settings do not fit each other", str(error))
    yield shards(cfg)


def shards(cfg: Config) -> Check:
    """Check whether there are shards, and whether they fit the settings."""
    uri = cfg.data.shards
    try:
        manifest = trainable_manifest(cfg)
    except ManifestError as error:
        # job.train prepares what is missing
        state: State = "warn" if cfg.data.transcript else "FAIL"
        return Check("shards", state, f"{uri}: none that can be used", str(error))
    except (ValueError, OSError) as error:
        return Check("shards", "FAIL", f"{uri}: do not fit the settings", str(error))

    utterances = f"{len(manifest)} utterances, {manifest.header['hours']:.1f} h"
    return Check("shards", "ok", f"{utterances}, {len(manifest.speakers)} speakers")


def locales(reports: Sequence[NodeReport]) -> Check:
    """Check whether all nodes write names of files in UTF-8."""
    other = sorted({f"{r.encoding} on {r.node}" for r in reports if r.encoding != "utf-8"})
    fix = "set LC_ALL=C.UTF-8 there, or names beyond ASCII are written differently by each node"
    return verdict("locale", not other, ", ".join(other) or "UTF-8", fix)


def full_size_without_gpu(cfg: Config, reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Warn of networks of full size where no node has a GPU."""
    full = cfg.model.upsample_initial_channel >= ModelConfig().upsample_initial_channel
    may_come = cfg.scaling.device == "cuda" and on_cluster()
    if full and not may_come and not any(report.gpus for report in reports):
        found = "networks of full size on a CPU: a step takes ten seconds and more"
        yield Check("size", "warn", found, "use a GPU, or a small model such as the demo's")


def versions(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check whether packages are as locked, and whether all nodes have the same Python."""
    pins = _pins()
    wrong = {
        f"{name} {version} instead of {pins[name]} on {report.node}"
        for report in reports
        for name, version in report.versions.items()
        if name in pins and version.split("+")[0] != pins[name]
    }
    found = "; ".join(sorted(wrong)) or f"as locked on {len(reports)} nodes"
    fix = "use the image of this version, or `make venv`"
    yield verdict("packages", not wrong, found, fix)

    pythons = {report.versions["python"] for report in reports}
    fix = "all nodes need the same Python: start them from one image"
    yield verdict("python", len(pythons) == 1, ", ".join(sorted(pythons)), fix, "FAIL")


def _pins() -> dict[str, str]:
    """Return the locked version of each package that this platform needs."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    locked = [Requirement(line) for line in lines if line and line[0] not in " #"]
    return {
        each.name: str(each.specifier).lstrip("=")
        for each in locked
        if each.marker is None or each.marker.evaluate()
    }


def gpus(cfg: Config, reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check GPUs, driver and NCCL, if the run wants GPUs."""
    if cfg.scaling.device == "cpu":
        yield Check("GPU", "ok", "not wanted (scaling.device is cpu)")
    elif (trouble := _gpu_trouble(reports)) is not None:
        yield trouble
    elif nodes := [report for report in reports if report.gpus]:
        found = [f"{len(r.gpus)} x {r.gpus[0]} on {r.node}" for r in nodes]
        yield Check("GPU", "ok", ", ".join(found))
        yield Check("precision", "ok", _precision(cfg, nodes))
        yield Check("driver, NCCL", "ok", f"{nodes[0].driver}, {nodes[0].nccl}")
    else:
        yield _no_gpu(cfg)


def _precision(cfg: Config, nodes: Sequence[NodeReport]) -> str:
    """Return what the run computes in, and whether the GPUs have bf16."""
    precision, capable = cfg.train.precision, all(report.bf16 for report in nodes)
    if precision == "auto":
        return f"train.precision auto: a new run takes {'bf16' if capable else 'fp32'}"
    faster = precision == "fp32" and capable
    return f"train.precision {precision}" + "; these GPUs have bf16: auto takes it" * faster


def compilers(cfg: Config, reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check whether every node can compile, if the run asks for it."""
    if cfg.train.compile == "off":
        return
    troubled = [report for report in reports if report.compiler_trouble]
    found = f"none on {', '.join(r.node for r in troubled)}" if troubled else "on every node"
    fix = troubled[0].compiler_trouble if troubled else ""
    yield verdict("compiler", not troubled, found, fix, "FAIL")


def _gpu_trouble(reports: Sequence[NodeReport]) -> Check | None:
    """Return what keeps torch from using the GPUs that nodes have; None if nothing does."""
    with_driver = [report for report in reports if report.driver]
    old = [r.driver for r in with_driver if int(r.driver.split(".")[0]) < DRIVER]
    if old:
        fix = f"CUDA 13 needs a driver of {DRIVER} or newer: change the machine's image"
        return Check("GPU", "FAIL", f"driver {', '.join(sorted(set(old)))}", fix)

    blind = [report.node for report in with_driver if not report.gpus]
    if blind:
        fix = (
            "start the container with its GPUs (--gpus all, nvidia's runtime), and torch as locked"
        )
        return Check("GPU", "FAIL", f"torch sees none on {', '.join(blind)}", fix)

    troubled = [report for report in reports if report.gpu_trouble]
    if troubled:
        found = f"torch cannot use those of {', '.join(report.node for report in troubled)}"
        return Check("GPU", "FAIL", found, f"{troubled[0].gpu_trouble}; or set scaling.device cpu")
    return None


def _no_gpu(cfg: Config) -> Check:
    """Return what it means that no node has a GPU."""
    try:
        require_gpu(cfg, 0)
    except ValueError as error:
        return Check("GPU", "FAIL", "none", str(error))
    if cfg.scaling.device == "cuda":
        return Check("GPU", "ok", "none yet: waits for the autoscaler")
    return Check("GPU", "ok", "none: trains on the CPU")


def storage(cfg: Config, reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check whether every node can write to run.storage and read from it, and how fast."""
    uri = cfg.run.storage
    failed = [f"{r.node}: {r.storage_error}" for r in reports if r.storage_error]
    if failed:
        found = f"{uri}: {len(failed)} of {len(reports)} nodes cannot use it"
        fix = f"{'; '.join(failed)}. Give the nodes' role read, write and delete there"
        yield Check("storage", "FAIL", found, fix)
        return

    # the slowest node decides, as all wait for it
    write = min(probes.STORAGE_BYTES / r.write_s for r in reports if r.write_s)
    read = min(probes.STORAGE_BYTES / r.read_s for r in reports if r.read_s)
    yield verdict(
        "storage",
        min(write, read) >= SLOW_STORAGE,
        f"{uri}: writes {write / 1e6:.0f} MB/s, reads {read / 1e6:.0f} MB/s",
        "slow: use a bucket in the nodes' region, or save less often "
        "(train.checkpoint.every_steps)",
    )
    if is_local(uri) and len(reports) > 1:
        fix = "set run.storage to s3://... or gs://..., unless all nodes mount this folder"
        yield Check("storage is shared", "warn", f"{uri} is a folder of each node", fix)


def clocks(skew: Mapping[str, float]) -> Check:
    """Check whether the nodes' clocks agree: object stores refuse requests that seem old.

    Args:
        skew: node -> seconds by which its clock is ahead.
    """
    worst = max(map(abs, skew.values()))
    far = [node for node, seconds in skew.items() if abs(seconds) > CLOCKS_WITHIN_S]
    fix = f"set the clock of {', '.join(far)}: chronyd or systemd-timesyncd"
    return verdict("clock", not far, f"within {worst:.1f} s", fix)


def room(reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check free disk and memory of the node that has least."""
    for name, attribute, enough, fix in FREE:
        free, node = min((getattr(report, attribute), report.node) for report in reports)
        yield verdict(name, free >= enough, f"{free / 1e9:.1f} GB free on {node}", fix)


def cpus_for_data(cfg: Config, resources: Mapping[str, float]) -> Check:
    """Check whether the workers leave a CPU for the loaders; otherwise, Ray Data waits for ever.

    Args:
        cfg: the configuration.
        resources: resource -> amount, of the whole cluster.
    """
    name = "CPUs for data"
    low, _ = cfg.scaling.bounds
    cpus = resources.get("CPU", 0)
    # the fewest workers with which the run would start, and one loader
    wanted = low * cfg.scaling.cpus_per_worker + 1
    missing = [
        resource
        for resource, amount in cfg.scaling.loader_resources.items()
        if resources.get(resource, 0) < amount
    ]
    if cpus >= wanted and not missing:
        found = f"{cpus - wanted + 1:g} beside those of {low} workers, for {cfg.data.loader_count}"
        return Check(name, "ok", f"{found} data.loaders")

    found = f"{cpus:g} CPUs, {wanted:g} wanted"
    if missing:
        found += f"; no {', '.join(missing)}"
    fix = (
        "lower scaling.num_workers or scaling.cpus_per_worker, or take scaling.loader_resources out"
    )
    if on_cluster():
        return Check(
            name, "warn", found, f"nothing if the autoscaler starts such nodes; else {fix}"
        )
    return Check(name, "FAIL", found, fix)


def connections(nodes: int, broken: Sequence[tuple[str, str]]) -> Check:
    """Check whether all nodes reach each other, as gloo, NCCL and Ray's object store must.

    Args:
        nodes: number of nodes.
        broken: (from, to) addresses of nodes between which no connection can be made.
    """
    apart = [f"{here} cannot reach {there}" for here, there in broken]
    found = "; ".join(apart) or f"{nodes} nodes reach each other"
    fix = "open all ports between the nodes: one security group, or no NetworkPolicy between them"
    return verdict("ports", not apart, found, fix, "FAIL")
