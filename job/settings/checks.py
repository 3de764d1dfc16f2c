"""What settings must fulfil before anything starts: one function per subject, for all commands."""

import importlib.util
import itertools
import math

from data.corpus.prepared import check_prepared
from data.shards.manifest import Manifest, read_manifest
from data.text.languages import LANGUAGES
from job.settings.config import Config
from job.settings.paths import run_folder
from trainable.evaluation.evaluate import check_metric
from trainable.evaluation.scorers import factory_of
from trainable.learning.state import check_sizes
from trainable.settings import check_fits, check_speakers, check_splits
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
    check_given_rows(cfg)
    check_sentences(cfg)
    check_scorers(cfg)
    run_folder(cfg)
    check_trackers(cfg)
    check_workers(cfg)
    check_timeouts(cfg)


def check_given_rows(cfg: Config) -> None:
    """Refuse rows of `data.speakers` that the speaker table has not.

    Raises:
        ValueError: names the key.
    """
    rows = cfg.model.n_speakers
    for name, row in cfg.data.speakers.items():
        if rows and row >= rows:
            raise ValueError(
                f"data.speakers.{name} is {row}, but model.n_speakers is {rows}: raise it to "
                f"{max(cfg.data.speakers.values()) + 1} or more"
            )


def check_sentences(cfg: Config) -> None:
    """Refuse sentences that no voice of this configuration could speak at validations.

    Raises:
        ValueError: names the key.
    """
    if cfg.eval.sentences and not cfg.model.n_speakers:
        raise ValueError(
            "eval.sentences cannot be spoken by a voice without a speaker table: leave them out"
        )
    for language, text in cfg.eval.sentences.items():
        key = f"eval.sentences.{language}"
        if language not in LANGUAGES:
            meant = [code for code in LANGUAGES if language.strip().upper() == code]
            hint = f"; did you mean {meant[0]}?" if meant else ""
            raise ValueError(f"{key}: no such language, there are {', '.join(LANGUAGES)}{hint}")
        if not text.strip():
            raise ValueError(f"{key} is empty: give a text, or leave the language out")
        try:
            cfg.data.bert.model(language)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error


def check_scorers(cfg: Config) -> None:
    """Refuse scorers whose factories cannot be imported.

    Raises:
        ValueError: names the key.
    """
    for name, scorer in cfg.eval.scorers.items():
        try:
            found = factory_of(scorer.factory)
        except Exception as error:  # whatever the module raises
            raise ValueError(
                f"eval.scorers.{name}.factory {scorer.factory!r} cannot be imported ({error}): "
                "give module:function"
            ) from error
        if not callable(found):
            raise ValueError(f"eval.scorers.{name}.factory {scorer.factory!r} is no function")


def check_trackers(cfg: Config) -> None:
    """Refuse trackers whose clients are not installed, and one that is given twice.

    Raises:
        ValueError: names the key.
    """
    given = cfg.run.trackers
    if len(set(given)) < len(given):
        raise ValueError(f"run.trackers has one twice: {', '.join(given)}")
    for name in given:
        found = importlib.util.find_spec(name)
        # W&B makes a folder of its own name, which is no package
        if found is None or found.origin is None:
            raise ValueError(
                f"run.trackers has {name}, which is not installed: pip install "
                f"'.[{name}]', or leave it out"
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


def warn_of_uneven_shares(cfg: Config) -> None:
    """Print one line if workers cannot share a global step evenly, with a number that they could.

    W workers take as long as the one with ceil(G / W) micro-batches.
    """
    low, high = cfg.scaling.bounds
    workers = range(low, high + 1)
    G = cfg.train.micro_batches_per_step
    waits = {W: _waiting_share(G, W) for W in workers}
    worst = max(waits, key=lambda W: waits[W])
    if not waits[worst]:
        return
    print(
        f"note: {worst} workers cannot share train.micro_batches_per_step {G} evenly and wait "
        f"{waits[worst]:.0%} of the time; {_shareable(G, workers)} could be shared by "
        f"{f'{low} to {high}' if low < high else high}"
    )


def _waiting_share(G: int, W: int) -> float:
    """Return the share of the workers' time that W workers wait who share G equal micro-batches."""
    return 1 - G / (W * -(-G // W))


def _shareable(G: int, workers: range) -> int:
    """Return the next larger number that all these numbers of workers can share.

    Evenly, or to within 5 % where that would take more than four times as many.
    """
    common = math.lcm(*workers)
    evenly = -(-G // common) * common
    if evenly <= 4 * G or len(workers) == 1:
        return evenly
    return next(n for n in itertools.count(G) if max(_waiting_share(n, W) for W in workers) <= 0.05)


def check_timeouts(cfg: Config) -> None:
    """Refuse timeouts by which workers would end before they report where they hang.

    The watchdog waits three times as long for a first step, a validation and a checkpoint. While
    a storage that fails is tried again, the others wait in a collective call.

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
    retry = cfg.train.checkpoint.retry_s
    if retry > LONG * hang:
        raise ValueError(
            f"train.checkpoint.retry_s is {retry:g}: give {LONG * hang:g} or less, which is {LONG} "
            f"x train.hang_timeout_s {hang:g}, or workers that wait for the storage are taken for "
            "hanging; or raise train.hang_timeout_s"
        )


def trainable_manifest(cfg: Config) -> Manifest:
    """Read the manifest of the shards, and refuse shards that the run cannot be trained on.

    Raises:
        ManifestError: there are no shards, or they are damaged.
        ValueError: shards and settings do not fit, or nothing is left to train on; names the keys.
    """
    manifest = fitting_manifest(cfg)
    check_trainable(cfg, manifest)
    return manifest


def check_trainable(cfg: Config, manifest: Manifest) -> None:
    """Refuse shards that no run could be trained on with these settings; print what they lack.

    Raises:
        ValueError: too many speakers, or no utterance to train on.
    """
    check_speakers(cfg.model, manifest)
    check_splits(cfg.data, manifest)
    if not len(manifest.rows("validation")):
        print(
            "note: no utterance is held back for validation, so there will be no scores "
            "(data.validation_per_speaker)"
        )
    languages = manifest.header["languages"]
    for language in set(cfg.eval.sentences) - set(languages):
        print(
            f"note: eval.sentences.{language} is not spoken: no utterance is in this language, "
            f"there are {', '.join(languages)}"
        )


def fitting_manifest(cfg: Config, other_corpus: bool = False) -> Manifest:
    """Read the manifest of the shards, and refuse shards that the networks cannot take.

    What the settings do not tell of the shards is printed.

    Args:
        cfg: the configuration.
        other_corpus: the shards are of another corpus than that of the configuration.

    Raises:
        ManifestError: there are no shards, or they are damaged.
        ValueError: shards and settings do not fit; names the keys.
    """
    manifest = read_manifest(cfg.data.shards)
    check_fits(cfg.data, cfg.model, manifest)
    for note in check_prepared(cfg.data, manifest, other_corpus):
        print(f"note: {note}")
    return manifest
