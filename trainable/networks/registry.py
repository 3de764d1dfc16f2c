"""What is trained, and on which losses: one declaration each, and all else follows from it.

From the declaration of a network follow its place in the state and in the step, its optimizer,
gradient scaler and wrapping for DDP, the names of its files in checkpoints and among published
weights, its tags in the log, and its keys in `train.clip_norm` and `train.learning_rates`. From the
declaration of a loss term follow its place in the generator's sum, its key in `train.loss_weights`
and its tags.

`examples/add_discriminator.py` and `examples/add_loss.py` declare one of each. This module needs no
torch, so that the configuration needs none: code is named as `module:name` and imported when it is
first used.
"""

import importlib
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data.config import DataConfig
    from trainable.config import TrainConfig
    from trainable.model_config import ModelConfig
    from trainable.networks.wavlm import WavLMFeatures

# a function or class, or the place from which it is imported: `module:name`
Code = str | Callable[..., Any]

GENERATOR = "g"
# file of the generator's averaged weights (train.ema_decay), beside those of the networks
AVERAGED = "ema"
# a network's name is a key of the configuration and the stem of a file
NAME = re.compile(r"[a-z][a-z0-9_]*")

# parts of the losses that are logged
SUB_DISCRIMINATORS = 6  # of the multi-period discriminator
# `faithful` has a value per utterance, of which so many are logged; `corrected` one per predictor
LOGGED_ITEMS = 8


@dataclass(frozen=True)
class Blueprint:
    """What a network or its adversary is made from.

    Attributes:
        model: sizes of the networks.
        train: hyper-parameters.
        data: STFT and mel parameters.
        slm: WavLM, whose sizes its discriminator needs.
    """

    model: "ModelConfig"
    train: "TrainConfig"
    data: "DataConfig"
    slm: "WavLMFeatures"


@dataclass(frozen=True)
class Term:
    """A term of the generator's sum.

    Attributes:
        name: key of `train.loss_weights`.
        description: what it measures, for docs/configuration.md.
        source: paper or system that it comes from.
        weight: default of its key.
        tag: name in the log of its weighted value; None: it is logged by its parts alone.
        parts: tags of the unweighted parts that it may return; a micro-batch may lack some.
        function: called as `function(real, generated, nets)`, see trainable/learning/terms.py; None
            for a term that a discriminator's adversary computes.
    """

    name: str
    description: str
    source: str = ""
    weight: float = 1.0
    tag: str | None = None
    parts: tuple[str, ...] = ()
    function: Code | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        """Every tag that it may have in the log."""
        return self.parts if self.tag is None else (self.tag, *self.parts)

    @property
    def help(self) -> str:
        """Meaning of its key, for the configuration's reference."""
        return f"{self.description} ({self.source})." if self.source else f"{self.description}."


@dataclass(frozen=True)
class Network:
    """A network that is trained.

    Attributes:
        name: stem of its file in checkpoints, key of the configuration, and end of its tag
            `grad_norm_<name>`.
        description: what it is, for docs/configuration.md.
        build: called with a Blueprint; returns the network with initial weights.
        prefix: beginning of the names of its published files.
        total: tag of its total loss.
        parts: tags of the parts of its loss that it may return; a micro-batch may lack some.
        adversary: for a discriminator: called with a Blueprint; returns its
            trainable.learning.adversaries.Adversary. None for the generator.
        terms: what its adversary adds to the generator's sum.
        enabled_by: key of `model` that is true where the network is wanted; None: always.
        reference_clip: largest gradient norm of the reference trainer, under bf16; None: it clips
            nothing.
        learning_rate: default of its key in `train.learning_rates`.
    """

    name: str
    description: str
    build: Code
    prefix: str
    total: str
    parts: tuple[str, ...] = ()
    adversary: Code | None = None
    terms: tuple[Term, ...] = ()
    enabled_by: str | None = None
    reference_clip: float | None = None
    learning_rate: float | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        """Every tag that its own loss may have in the log."""
        return (self.total, *self.parts)

    def wanted(self, model: "ModelConfig") -> bool:
        """Return whether the configuration of the networks asks for it."""
        return self.enabled_by is None or getattr(model, self.enabled_by)


def numbered(prefix: str, count: int) -> tuple[str, ...]:
    """Return the tags `<prefix>0`, `<prefix>1`, ..."""
    return tuple(f"{prefix}{i}" for i in range(count))


# Networks are built, and draw their initial weights, in this order; the generator's sum adds up its
# terms in this order, those of a discriminator where the discriminator stands.
_declared: list[Network | Term] = [
    Network(
        "g",
        "the generator",
        build="trainable.networks.generator.build:build",
        prefix="G",
        total="loss/g/total",
        reference_clip=500.0,
    ),
    Network(
        "d",
        "the multi-period discriminator",
        build="trainable.networks.discriminators.period:build",
        prefix="D",
        total="loss/d/total",
        parts=(
            *numbered("loss/d_r/", SUB_DISCRIMINATORS),
            *numbered("loss/d_g/", SUB_DISCRIMINATORS),
        ),
        adversary="trainable.learning.adversaries:MultiPeriodAdversary",
        terms=(
            Term(
                "adversarial",
                "least-squares GAN loss of the multi-period discriminator",
                source="Mao et al., 2017, arXiv:1611.04076",
                parts=numbered("loss/g/", SUB_DISCRIMINATORS),
            ),
            Term(
                "feature_matching",
                "L1 between that discriminator's features",
                source="HiFi-GAN, Kong et al., 2020, arXiv:2010.05646",
                tag="loss/g/fm",
            ),
        ),
        reference_clip=200.0,
    ),
    Term(
        "mel",
        "L1 between mel spectrograms",
        source="HiFi-GAN",
        weight=45.0,
        tag="loss/g/mel",
        function="trainable.learning.terms:mel",
    ),
    Term(
        "duration",
        "both duration predictors",
        source="VITS, Kim et al., 2021, arXiv:2106.06103",
        tag="loss/g/dur",
        function="trainable.learning.terms:duration",
    ),
    Term(
        "kl",
        "Kullback-Leibler divergence of prior and posterior",
        source="VITS",
        tag="loss/g/kl",
        function="trainable.learning.terms:kl",
    ),
    Term(
        "wavlm_feature",
        "L1 between WavLM's features",
        source="StyleTTS 2, Li et al., 2023, arXiv:2306.07691",
        tag="loss/g/lm",
        function="trainable.learning.terms:wavlm_feature",
    ),
    Network(
        "wd",
        "the WavLM discriminator",
        build="trainable.networks.discriminators.wavlm:build",
        prefix="WD",
        total="loss/wd/total",
        adversary="trainable.learning.adversaries:WavLMAdversary",
        terms=(
            Term(
                "wavlm_adversarial",
                "GAN loss of the WavLM discriminator",
                source="StyleTTS 2",
                tag="loss/g/lm_gen",
            ),
        ),
    ),
    Network(
        "dur",
        "the duration discriminator",
        build="trainable.networks.discriminators.duration:build",
        prefix="DUR",
        total="loss/dur_disc/total",
        parts=(
            *numbered("loss/dur_disc_r/", LOGGED_ITEMS),
            *numbered("loss/dur_disc_g/", LOGGED_ITEMS),
        ),
        adversary="trainable.learning.adversaries:DurationAdversary",
        terms=(
            Term(
                "duration_adversarial",
                "GAN loss of the duration discriminator",
                source="VITS2, Kong et al., 2023, arXiv:2307.16430",
                tag="loss/g/dur_gen",
                parts=numbered("loss/g/dur_gen_", LOGGED_ITEMS),
            ),
        ),
        enabled_by="use_duration_discriminator",
    ),
]


def networks() -> tuple[Network, ...]:
    """Return the declared networks, in the order in which they are built."""
    return tuple(declared for declared in _declared if isinstance(declared, Network))


def network(name: str) -> Network:
    """Return the declaration of a network.

    Raises:
        KeyError: none has that name.
    """
    return {declared.name: declared for declared in networks()}[name]


def terms(present: Collection[str] | None = None) -> tuple[Term, ...]:
    """Return the terms of the generator's sum, in order.

    Args:
        present: names of the networks that are trained, whose terms are wanted; None: of all.
    """
    return tuple(
        term
        for declared in _declared
        if isinstance(declared, Term) or present is None or declared.name in present
        for term in _terms_of(declared)
    )


def loss_tags(present: Collection[str]) -> list[str]:
    """Return every tag that the losses of a step may have, where these networks are trained."""
    own = [declared for declared in networks() if declared.name in present]
    tags = [declared.total for declared in own]
    tags += [tag for term in terms(present) for tag in term.tags]
    tags += [tag for declared in own for tag in declared.parts]
    return tags


def owner(tag: str) -> str:
    """Return the name of the network that a loss or a `grad_norm_*` tells of.

    Raises:
        KeyError: nothing with that tag is declared.
    """
    if tag.startswith("grad_norm_"):
        return network(tag.removeprefix("grad_norm_")).name
    owners = {tag: GENERATOR for term in terms() for tag in term.tags}
    owners |= {tag: declared.name for declared in networks() for tag in declared.tags}
    return owners[tag]


def imported(code: Code) -> Callable[..., Any]:
    """Return the function or class that a declaration names."""
    if not isinstance(code, str):
        return code
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)


def register(declared: Network | Term) -> None:
    """Add a network or a loss term, behind those that are there.

    It must be there before the networks are built, in every process of the run.

    Raises:
        ValueError: its names or tags are taken, or are none.
    """
    if not NAME.fullmatch(declared.name):
        raise ValueError(f"{declared.name!r} is no name: give lower-case letters, digits and _")
    for term in _terms_of(declared):
        if not term.tags:
            raise ValueError(f"{term.name} has no tag: nobody would see it in the log")
    if isinstance(declared, Term) and declared.function is None:
        raise ValueError(f"{declared.name} has no function that computes it")
    if isinstance(declared, Network) and declared.adversary is None:
        raise ValueError(f"{declared.name} has no adversary that trains it")
    new = _names_of(declared)
    taken = {AVERAGED, *(name for other in _declared for name in _names_of(other))}
    if doubled := [name for name in new if name in taken or new.count(name) > 1]:
        raise ValueError(f"{declared.name} declares {', '.join(doubled)}, which is taken")
    _declared.append(declared)


@contextmanager
def registered(*declarations: Network | Term) -> Iterator[None]:
    """Register networks and loss terms for as long as the block lasts."""
    before = list(_declared)
    try:
        for declared in declarations:
            register(declared)
        yield
    finally:
        _declared[:] = before


def _terms_of(declared: Network | Term) -> tuple[Term, ...]:
    return (declared,) if isinstance(declared, Term) else declared.terms


def _names_of(declared: Network | Term) -> list[str]:
    """Return what only one declaration may have: names, prefixes of files, keys and tags."""
    found: list[str] = []
    if isinstance(declared, Network):
        found += [declared.name, declared.prefix, *declared.tags]
    for term in _terms_of(declared):
        found += [f"train.loss_weights.{term.name}", *term.tags]
    return found
