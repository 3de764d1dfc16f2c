"""Options are written with dashes; forms with underscores, as older scripts have, still work."""

import re

import pytest

from job import evaluate, export, spot, synthesize
from job.options import submit
from tuning import sweep

COMMANDS = [evaluate, export, spot, submit, synthesize, sweep]
SPEAK = ["--checkpoint", "run", "--text", "a", "--out", "x.wav"]


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__)
def test_options_are_written_with_dashes(module):
    """But for keys of the configuration, which have dots, and jsonargparse's own option."""
    made = module.command_line()
    shown = made.format_help() if module is spot else made.help_of_all()
    options = set(re.findall(r"--([\w.-]+)", shown)) - {"print_config"}
    assert options
    assert [option for option in options if "_" in option and "." not in option] == []


@pytest.mark.parametrize("option", ["sdp-ratio", "noise-scale", "noise-scale-w", "length-scale"])
def test_numbers_of_a_speech_in_both_forms(option):
    made = synthesize.command_line()
    name = option.replace("-", "_")
    default = getattr(made.parse_args(SPEAK), name)
    for form in (option, name):
        assert getattr(made.parse_args([*SPEAK, f"--{form}", "0.25"]), name) == 0.25 != default


def test_switches_and_jsonargparse_in_both_forms():
    evaluation = evaluate.command_line()
    for form in ("--trust-scorers", "--trust_scorers"):
        assert evaluation.parse_args(["--checkpoint", "run", form]).trust_scorers
    assert not evaluation.parse_args(["--checkpoint", "run"]).trust_scorers
    search = sweep.command_line()
    for form in ("--at-once", "--at_once"):
        assert search.parse_args(["--space", "reconstruction", form, "3"]).at_once == 3
    assert search.parse_args(["--space", "reconstruction"]).at_once is None
