"""What settings must fulfil before anything starts: one function per subject, for all commands."""

from data.shards.manifest import Manifest, read_manifest
from job.settings.config import Config
from job.settings.paths import run_folder
from trainable.evaluation.evaluate import check_metric
from trainable.learning.state import check_sizes
from trainable.settings import check_fits
from trainable.worker.watchdog import LONG

# between the time that workers report where they hang and the end of what they hang in
REPORT_S = 60


def check(cfg: Config) -> None:
    """Refuse settings that cannot train.

    Raises:
        ValueError: settings do not fit each other; names the keys.
    """
    check_sizes(cfg.model, cfg.train, cfg.data)
    check_metric(cfg.train, cfg.eval)
    check_sentences(cfg)
    run_folder(cfg)
    check_workers(cfg)
    check_timeouts(cfg)


def check_sentences(cfg: Config) -> None:
    """Refuse sentences to be spoken at validations by a voice that would need a recording.

    Raises:
        ValueError: names the key.
    """
    if cfg.eval.sentences and not cfg.model.n_speakers:
        raise ValueError(
            "eval.sentences cannot be spoken by a voice without a speaker table: leave them out"
        )


def check_workers(cfg: Config) -> None:
    """Refuse more workers than a global step has micro-batches.

    Raises:
        ValueError: names both keys.
    """
    _, high = cfg.scaling.bounds
    micro_batches = cfg.train.micro_batches_per_step
    if high > micro_batches:
        raise ValueError(
            f"scaling.num_workers {high} is more than the plan can feed: a global step has "
            f"train.micro_batches_per_step {micro_batches} micro-batches; raise it, or lower the "
            "number of workers"
        )


def check_timeouts(cfg: Config) -> None:
    """Refuse timeouts by which workers would end before they report where they hang.

    The watchdog waits three times as long for a first step, a validation and a checkpoint.

    Raises:
        ValueError: names both keys.
    """
    hang = cfg.train.hang_timeout_s
    collective = cfg.scaling.collective_timeout_s
    needed = LONG * hang + REPORT_S
    if collective < needed:
        raise ValueError(
            f"scaling.collective_timeout_s is {collective:g}: give {needed:g} or more, which is "
            f"{LONG} x train.hang_timeout_s {hang:g} and {REPORT_S} s, or the workers end before "
            "they have reported where they hang; or lower train.hang_timeout_s"
        )


def fitting_manifest(cfg: Config) -> Manifest:
    """Read the manifest of the shards, and refuse shards that the networks cannot take.

    Raises:
        ManifestError: there are no shards, or they are damaged.
        ValueError: shards and settings do not fit; names the keys.
    """
    manifest = read_manifest(cfg.data.shards)
    check_fits(cfg.data, cfg.model, manifest)
    return manifest
