"""Whether what a run reads is there: transcript, models, the weights that it starts from."""

from collections.abc import Iterator, Sequence

from data.corpus.transcript import Transcript, read_transcript
from data.models import HubUnreachableError, find_model
from data.shards.manifest import ManifestError, read_manifest
from job.on_ray.cluster import on_cluster
from job.on_ray.health.fitness import Check, State, verdict
from job.on_ray.health.probes import NodeReport
from job.settings.config import Config
from job.settings.models import Model, berts, of_training
from trainable.weights.sources import look_for
from trainable.weights.warm_start import check_first_step


def models(cfg: Config, reports: Sequence[NodeReport]) -> Iterator[Check]:
    """Check whether every model that would be loaded is somewhere, and whether it can be kept."""
    downloads = 0
    for model in models_of(cfg):
        try:
            found = find_model(*model)
        except HubUnreachableError as error:
            yield Check(model.key, "warn" if on_cluster() else "FAIL", model.name, str(error))
            continue
        except ValueError as error:
            yield Check(model.key, "FAIL", model.name, str(error))
            continue
        downloads += found.size
        size = f", {found.size / 1e9:.1f} GB to download" if found.size else ""
        yield Check(model.key, "ok", f"{model.name}: {found.where}{size}")
    yield from start_weights(cfg)
    yield from room_for_models(reports, downloads)


def models_of(cfg: Config) -> list[Model]:
    """Return the models of transformers that a preparation and a training would load."""
    return list(dict.fromkeys([*of_training(cfg), *berts(cfg.data, languages_of(cfg))]))


def languages_of(cfg: Config) -> list[str]:
    """Return the languages of a corpus that is still to be prepared, or has been."""
    if shards_are_here(cfg):
        return sorted(read_manifest(cfg.data.shards).words("language"))
    try:
        lines = transcript_of(cfg).lines
    except (OSError, ValueError):  # `transcript` has a check of its own
        return []
    return lines.words("language")


def transcript(cfg: Config) -> Iterator[Check]:
    """Check whether the transcript can be prepared; a training needs it until there are shards."""
    if not cfg.data.transcript:
        return
    name = "data.transcript"
    otherwise: State = "warn" if shards_are_here(cfg) else "FAIL"
    try:
        found = transcript_of(cfg)
    except (OSError, ValueError) as error:
        yield Check(name, otherwise, cfg.data.transcript, str(error))
        return
    usable = len(found.lines)
    told = f"{usable} of {found.count} lines can be used"
    fix = "write lines `path|speaker|language|text`: docs/data-format.md"
    yield verdict(name, usable > 0, told, fix, otherwise)


def transcript_of(cfg: Config) -> Transcript:
    """Read the transcript of a configuration.

    Raises: see data.corpus.transcript.read_transcript.
    """
    data = cfg.data
    return read_transcript(
        data.transcript, data.audio_root, layout=data.layout, language=data.language
    )


def shards_are_here(cfg: Config) -> bool:
    """Tell whether the corpus has been prepared."""
    try:
        read_manifest(cfg.data.shards)
    except (ManifestError, OSError, ValueError):
        return False
    return True


def start_weights(cfg: Config) -> Iterator[Check]:
    """Check whether train.init_from holds weights."""
    source = cfg.train.init_from
    if source is None:
        return
    try:
        step = look_for(source, cfg.train.hub_endpoint)
        if cfg.train.init_step == "auto":
            check_first_step(cfg.train, step)
        yield Check("train.init_from", "ok", source)
    except HubUnreachableError as error:
        yield Check("train.init_from", "warn" if on_cluster() else "FAIL", source, str(error))
    except (OSError, ValueError) as error:
        yield Check("train.init_from", "FAIL", source, str(error))


def room_for_models(reports: Sequence[NodeReport], downloads: int) -> Iterator[Check]:
    """Check whether every node can keep the models that it downloads.

    Args:
        reports: of all nodes.
        downloads: bytes that are to be downloaded.
    """
    closed = [f"{r.cache} on {r.node}: {r.cache_error}" for r in reports if r.cache_error]
    if closed:
        state: State = "FAIL" if downloads else "warn"
        fix = "set HF_HOME to a folder that can be written"
        yield Check("models' cache", state, "; ".join(closed), fix)
