"""Declarations: what follows from them, and what is refused."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest

from trainable.config import ClipNorm, LearningRates, LossWeights
from trainable.model_config import ModelConfig
from trainable.networks.registry import (
    Network,
    Term,
    imported,
    loss_tags,
    network,
    networks,
    owner,
    register,
    registered,
    terms,
)

TOY = Network("d2", "a toy", build=dict, prefix="D2", total="loss/d2/total", adversary=dict)
LOSS = Term("toy", "a toy", tag="loss/g/toy", function=dict)


def test_the_order_is_the_references():
    """Initial weights are drawn, and the generator's sum is added up, in this order."""
    assert [declared.name for declared in networks()] == ["g", "d", "wd", "dur"]
    assert [term.name for term in terms()] == [
        "adversarial",
        "feature_matching",
        "mel",
        "duration",
        "kl",
        "wavlm_feature",
        "wavlm_adversarial",
        "duration_adversarial",
    ]
    assert [declared.prefix for declared in networks()] == ["G", "D", "WD", "DUR"]


def test_everything_named_can_be_imported():
    for declared in networks():
        assert callable(imported(declared.build))
        assert declared.adversary is None or callable(imported(declared.adversary))
    for term in terms():
        assert term.function is None or callable(imported(term.function))
    adversarial = {term.name for declared in networks() for term in declared.terms}
    assert {term.name for term in terms() if term.function is None} == adversarial


def test_the_configuration_has_a_key_for_each():
    names = [declared.name for declared in networks()]
    assert [f.name for f in fields(ClipNorm)] == names
    assert [f.name for f in fields(LearningRates)] == names
    assert {f.name: f.default for f in fields(LossWeights)} == {t.name: t.weight for t in terms()}
    clip = ClipNorm(wd=3.0, dur="none")
    assert [clip.limit(name, "bf16") for name in names] == [500.0, 200.0, 3.0, None]
    assert [clip.limit(name, "fp32") for name in names] == [None, None, 3.0, None]
    for cls in (ClipNorm, LearningRates, LossWeights):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            cls(speed=1)
    assert LossWeights(mel=2.0) != LossWeights()


def test_a_network_that_the_model_does_without_has_no_tags():
    model = ModelConfig(use_duration_discriminator=False)
    names = [declared.name for declared in networks() if declared.wanted(model)]
    assert names == ["g", "d", "wd"]
    assert not [tag for tag in loss_tags(names) if "dur_" in tag]
    everything = loss_tags([declared.name for declared in networks()])
    assert len(everything) == len(set(everything))
    assert {"loss/g/dur_gen", "loss/g/dur_gen_7", "loss/dur_disc_r/0"} <= set(everything)


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("loss/g/total", "g"),
        ("loss/g/kl", "g"),
        ("loss/g/3", "g"),
        ("loss/g/dur_gen_5", "g"),
        ("loss/d_r/0", "d"),
        ("loss/wd/total", "wd"),
        ("loss/dur_disc/total", "dur"),
        ("loss/dur_disc_g/1", "dur"),
        ("grad_norm_dur", "dur"),
    ],
)
def test_every_tag_tells_of_a_network(tag, name):
    assert owner(tag) == name


def test_what_is_registered_lasts_as_long_as_its_block():
    with registered(TOY, LOSS):
        assert network("d2") == TOY
        assert terms()[-1] == LOSS
        assert owner("grad_norm_d2") == "d2"
    with pytest.raises(KeyError):
        network("d2")
    assert LOSS not in terms()


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (replace(TOY, name="D/2"), "'D/2' is no name"),
        (replace(TOY, name="ema"), "ema declares ema, which is taken"),
        (replace(TOY, prefix="DUR"), "d2 declares DUR, which is taken"),
        (replace(TOY, total="loss/g/kl"), "loss/g/kl, which is taken"),
        (replace(TOY, parts=("loss/d2/total",)), "loss/d2/total, .*which is taken"),
        (replace(TOY, adversary=None), "d2 has no adversary"),
        (replace(LOSS, name="mel"), "train.loss_weights.mel, which is taken"),
        (replace(LOSS, tag=None), "toy has no tag"),
        (replace(LOSS, function=None), "toy has no function"),
    ],
)
def test_declarations_that_clash_or_say_nothing_are_refused(declared, message):
    before = networks(), terms()
    with pytest.raises(ValueError, match=message):
        register(declared)
    assert (networks(), terms()) == before


@pytest.mark.processes
def test_the_declarations_and_what_reads_them_need_no_torch():
    code = (
        "import sys, trainable.config, trainable.run.format, trainable.networks.registry, "
        "trainable.learning.not_finite; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
