"""What a stream of micro-batches follows from, and the manifest and schedule that it names."""

import functools
from dataclasses import dataclass

from data.config import DataConfig
from data.files import keep_trying
from data.plan.blocks import BLOCK
from data.plan.history import Cut, History, begun, with_blocks
from data.plan.schedule import Schedule
from data.shards.manifest import Manifest, read_manifest

MANIFESTS_KEPT = 4
_known: dict[tuple[str, str], Manifest] = {}  # folder or URI, digest -> the manifest


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
        block: int | None = None,
        generations: str | None = None,
    ) -> "StreamSpec":
        """Return the spec of a run that begins with these settings.

        Args:
            data: the run's data.
            digest: digest of its manifest.
            seed: seed of the run.
            micro_batches_per_step: G.
            segment_frames: shorter utterances are left out.
            block: see data.plan.history.Cut.
            generations: likewise.
        """
        cut = Cut(
            seed,
            micro_batches_per_step,
            segment_frames,
            data.add_blank,
            data.plan,
            block,
            generations,
        )
        return cls(data, digest, begun(cut))

    @property
    def cut(self) -> Cut:
        """What epochs are cut by from now on."""
        return self.history[-1].cut


def manifest_of(spec: StreamSpec) -> Manifest:
    """Return the manifest that a spec names; a process reads it once.

    Raises:
        ValueError: the shards were prepared again since, or lack the spectrograms that are to be
            read from them.
        OSError: it cannot be read.
    """
    named = (spec.data.shards, spec.digest)
    manifest = _known.get(named)
    if manifest is None:
        manifest = _read(*named)
        know(manifest)
    if spec.data.spectrogram_on == "shards" and not manifest.header["spectrograms"]:
        raise ValueError(
            f"data.spectrogram_on is shards, but {spec.data.shards} was prepared without "
            "spectrograms: prepare again, or set it to pipeline or device"
        )
    return manifest


def know(manifest: Manifest) -> None:
    """Let `manifest_of` return a manifest that this process has read; it knows the last few."""
    _known[manifest.uri, manifest.digest] = manifest
    while len(_known) > MANIFESTS_KEPT:
        _known.pop(next(iter(_known)), None)


def _read(uri: str, digest: str) -> Manifest:
    manifest = keep_trying(functools.partial(read_manifest, uri))
    if manifest.digest != digest:
        raise ValueError(
            f"{uri} was prepared again since this run began (digest {manifest.digest[:12]}, "
            f"not {digest[:12]}): start a new run.name, or restore the shards"
        )
    return manifest


def block_of(manifest: Manifest) -> int:
    """Return how many utterances of a manifest stay together, as they lie in the shards.

    Shards of older code are not written in that order.
    """
    return BLOCK if manifest.has_ranges else 1


@functools.lru_cache(maxsize=2)
def schedule_of(spec: StreamSpec) -> Schedule:
    """Return the order of a spec's training split; its manifest is read once.

    Raises:
        ValueError: its rows were added by other preparations than when the run began; or see
            `manifest_of`.
        OSError: see `manifest_of`.
    """
    manifest = manifest_of(spec)
    history = with_blocks(spec.history, block_of(manifest), manifest.generations)
    if any(change.cut.generations not in (None, manifest.generations) for change in history):
        raise ValueError(
            f"{manifest.uri} holds the run's rows, but other preparations added them than when it "
            "began, which its order follows: restore the manifest or choose another run.name"
        )
    generations = manifest.columns.generations("train")
    return Schedule(history, manifest.rows("train"), *manifest.lengths("train"), generations)
