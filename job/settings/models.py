"""The models that a command will load: found before it starts."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from data.config import DataConfig
from data.models import HubUnreachableError, find_model
from data.settings.asr import AsrConfig
from data.text.languages import LANGUAGES
from data.transcribe.command import check_command
from data.transcribe.recogniser import kind_of
from job.settings.config import Config
from trainable.weights.sources import look_for
from trainable.weights.warm_start import check_first_step


class Model(NamedTuple):
    """A model that the configuration names.

    Attributes:
        key: configuration key.
        name: folder, name on the hub, or `random`.
        revision: hub revision.
    """

    key: str
    name: str
    revision: str | None


def berts(cfg: DataConfig, languages: Iterable[str]) -> Iterator[Model]:
    """Yield the BERT models of some languages.

    Raises:
        ValueError: a language has no model; names the key.
    """
    for language in languages:
        yield Model(cfg.bert.key(language), *cfg.bert.model(language))


def of_training(cfg: Config) -> list[Model]:
    """Return the models of transformers that a training loads."""
    slm = cfg.model.slm
    spoken = [language for language in cfg.eval.sentences if language in LANGUAGES]
    return [Model("model.slm.path", slm.path, slm.revision), *berts(cfg.data, spoken)]


def check_start_weights(cfg: Config, hub_is_needed: bool) -> None:
    """Refuse a `train.init_from` that is nowhere, or has no step to go on with.

    See `check_models`.
    """
    if cfg.train.init_from is not None:
        with _unless_others_reach_it(hub_is_needed):
            step = look_for(cfg.train.init_from, cfg.train.hub_endpoint)
            if cfg.train.init_step == "auto":
                check_first_step(cfg.train, step)


def check_models(models: Iterable[Model], hub_is_needed: bool) -> None:
    """Refuse models that are nowhere.

    Args:
        models: what will be loaded.
        hub_is_needed: whether a model that only the hub can have is refused while the hub does not
            answer; on a cluster, other nodes may reach it.

    Raises:
        ValueError: there is no such model; names its key.
        OSError: the hub does not answer; names the key too.
    """
    for model in dict.fromkeys(models):
        with _unless_others_reach_it(hub_is_needed):
            find_model(*model)


def check_recogniser(cfg: AsrConfig, hub_is_needed: bool) -> None:
    """Refuse a recogniser that cannot run.

    Args:
        cfg: names it.
        hub_is_needed: see `check_models`.

    Raises:
        ValueError: there is no such command or model, or it recognises no speech; names its key.
        OSError: the hub does not answer.
    """
    if cfg.command is not None:
        check_command(cfg.command)
        return
    with _unless_others_reach_it(hub_is_needed):
        find_model("data.asr.model", cfg.model, cfg.revision)
        try:
            kind_of(cfg)
        except OSError as error:
            raise HubUnreachableError(f"data.asr.model is {cfg.model}: {error}") from error


@contextlib.contextmanager
def _unless_others_reach_it(hub_is_needed: bool) -> Iterator[None]:
    """Warn, rather than fail, that the hub does not answer here."""
    try:
        yield
    except HubUnreachableError as error:
        if hub_is_needed:
            raise
        print(f"warning: {error}", flush=True)
