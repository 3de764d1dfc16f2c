"""The examples run, and do what they say."""

import re

import pytest

from examples import add_discriminator, add_loss
from trainable.networks.registry import networks, terms


@pytest.mark.medium
def test_a_loss_is_added(capsys):
    before = terms()
    add_loss.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(
        re.fullmatch(r"step \d: loudness \d+\.\d+ \(weighted\) of a sum of \d+\.\d+", line)
        for line in lines
    )
    assert terms() == before


@pytest.mark.medium
def test_a_discriminator_is_added(capsys):
    before = networks()
    add_discriminator.main()
    first, second, saved, restored = capsys.readouterr().out.splitlines()
    assert first.startswith("step 1: its loss ")
    assert second.startswith("step 2: its loss ")
    assert saved == (
        "saved d.safetensors, dur.safetensors, env.safetensors, g.safetensors, wd.safetensors"
    )
    assert restored == "restored, and trained to step 3"
    assert networks() == before
