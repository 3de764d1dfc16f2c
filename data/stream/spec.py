"""What a stream of micro-batches follows from, and the manifest and schedule that it names."""

import functools
from dataclasses import dataclass

import numpy as np

from data.config import DataConfig
from data.files import keep_trying
from data.plan.history import Cut, History, begun
from data.plan.schedule import Schedule
from data.shards.manifest import Manifest, read_manifest


@dataclass(frozen=True)
class StreamSpec:
    """Names the data and its order.

    Attributes:
        data: where the shards lie, and how they are collated.
        digest: digest of the manifest that the run was started with; another one is refused.
        history: changes of what epochs are cut by, the present cut the last one.
    """

    data: DataConfig
    digest: str
    history: History

    @classmethod
    def of_new_run(
        cls,
        data: DataConfig,
        digest: str,
        seed: int,
        micro_batches_per_step: int,
        segment_frames: int,
    ) -> "StreamSpec":
        """Return the spec of a run that begins with these settings.

        Args:
            data: the run's data.
            digest: digest of its manifest.
            seed: seed of the run.
            micro_batches_per_step: G.
            segment_frames: shorter utterances are left out.
        """
        cut = Cut(seed, micro_batches_per_step, segment_frames, data.add_blank, data.plan)
        return cls(data, digest, begun(cut))

    @property
    def cut(self) -> Cut:
        """What epochs are cut by from now on."""
        return self.history[-1].cut


def manifest_of(spec: StreamSpec) -> Manifest:
    """Read the manifest that a spec names; it is read once.

    Raises:
        ValueError: the shards were prepared again since, or lack the spectrograms that are to be
            read from them.
        OSError: it cannot be read.
    """
    manifest = _read(spec.data.shards, spec.digest)
    if spec.data.spectrogram_on == "shards" and not manifest.header["spectrograms"]:
        raise ValueError(
            f"data.spectrogram_on is shards, but {spec.data.shards} was prepared without "
            "spectrograms: prepare again, or set it to pipeline or device"
        )
    return manifest


@functools.lru_cache(maxsize=4)
def _read(uri: str, digest: str) -> Manifest:
    manifest = keep_trying(functools.partial(read_manifest, uri))
    if manifest.digest != digest:
        raise ValueError(
            f"{uri} was prepared again since this run began (digest {manifest.digest[:12]}, "
            f"not {digest[:12]}): start a new run.name, or restore the shards"
        )
    return manifest


@functools.lru_cache(maxsize=2)
def schedule_of(spec: StreamSpec) -> Schedule:
    """Return the order of a spec's training split; its manifest is read once.

    Raises:
        ValueError, OSError: see `manifest_of`.
    """
    manifest = manifest_of(spec)
    rows = manifest.rows("train")
    frames = manifest.column("frames")[rows].astype(np.int64)
    phones = manifest.column("phones")[rows].astype(np.int64)
    return Schedule(spec.history, rows, frames, phones)
