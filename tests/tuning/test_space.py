"""Search spaces: every mistake is refused before anything starts, and named."""

import math
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data.settings.dotted_keys import attribute
from job.settings.cli import overridden
from job.settings.config import Config
from tuning.options import SearchOptions
from tuning.search import check_search
from tuning.space import FIXED, Axis, names, read_space

MEL = "train.loss_weights.mel"


@pytest.fixture
def written(tmp_path):
    """Read a space from YAML."""

    def read(text: str):
        (tmp_path / "mine.yaml").write_text(text)
        return read_space(str(tmp_path / "mine.yaml"), Config())

    return read


@pytest.mark.medium
@pytest.mark.parametrize("name", names())
def test_the_named_spaces_fit_the_configuration(name):
    space = read_space(name, Config())
    assert space
    # a configuration of all first values, one of all second ones, ...
    for number in range(max(len(axis.values) for axis in space.values())):
        values = {key: axis.values[number % len(axis.values)] for key, axis in space.items()}
        cfg = overridden(Config(), values)
        assert {key: attribute(cfg, key) for key in values} == values


@pytest.mark.medium
def test_all_weights_and_learning_rates_are_keys():
    weights = read_space("loss_weights", Config())
    assert set(weights) == {
        f"train.loss_weights.{name}" for name in vars(Config().train.loss_weights)
    }
    assert all(axis.holds(attribute(Config(), key)) for key, axis in weights.items())
    rates = read_space("learning_rates", Config())
    assert set(rates) == {f"train.learning_rates.{name}" for name in ("g", "d", "dur", "wd")}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "train.loss_weights.mell: {uniform: [1, 2]}",
            r"train\.loss_weights\.mell .* did you mean .*weights\.mel\?",
        ),
        ("train.loss_weights: {choice: [1, 2]}", r"train\.loss_weights is no key"),
        (f"{MEL}: {{uniform: [2, 1]}}", r"mel: uniform \[2.0, 1.0\] is empty"),
        (f"{MEL}: {{uniform: [1, 1]}}", "mel: uniform .* is empty"),
        (f"{MEL}: {{uniform: [1, .inf]}}", "mel is inf: give a number from 0"),
        (f"{MEL}: {{uniform: [1, .nan]}}", "mel is nan: give a number from 0"),
        (f"{MEL}: {{uniform: [-1, 45]}}", r"mel is -1\.0: give a number from 0"),
        (
            "train.ema_decay: {choice: [0.9, 1]}",
            r"ema_decay is 1\.0: give a number from 0 to below 1",
        ),
        (f"{MEL}: {{loguniform: [0, 1]}}", "mel: loguniform .* must begin above 0"),
        (f"{MEL}: {{uniform: [1, 2, 3]}}", "mel: uniform .* is no range"),
        (f"{MEL}: {{choice: []}}", "mel has no values"),
        (f"{MEL}: {{choice: [1, 1.0]}}", "mel: choice has a value twice"),
        (f"{MEL}: {{normal: [1, 2]}}", "mel is {'normal': .* give {kind: .values.}"),
        (f"{MEL}: 45", "mel is 45: give {kind: .values.}"),
        (f"{MEL}: {{uniform: [low, high]}}", "mel is 'low': give a number from 0"),
        ("train.warmup_steps: {uniform: [1, 10]}", r"train\.warmup_steps takes no fractions"),
        (
            "train.precision: {choice: [fp32, fp8]}",
            r"train\.precision is 'fp8': give fp32, bf16, fp16 or auto",
        ),
        ("data.shards: {choice: [a, b]}", r"data\.shards must be the same in all trials"),
        ("train.max_steps: {choice: [1, 2]}", r"train\.max_steps must be the same in all trials"),
        ("- 1", "give a line"),
        ("", "give a line"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_mistake_is_refused_with_key_and_file(written, text, named):
    with pytest.raises(ValueError, match=rf"{named}[\s\S]*mine\.yaml|mine\.yaml[\s\S]*{named}"):
        written(text)


def test_a_space_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"nowhere: no such file, .*loss_weights"):
        read_space("nowhere", Config())


@pytest.mark.medium
@settings(deadline=None, max_examples=25)  # each parses a configuration
@given(st.floats(), st.floats(), st.sampled_from(["uniform", "loguniform"]))
def test_a_range_is_taken_if_and_only_if_something_can_be_drawn_from_it(
    tmp_path_factory, low, high, kind
):
    file = tmp_path_factory.mktemp("space") / "s.yaml"
    file.write_text(yaml.safe_dump({MEL: {kind: [low, high]}}))
    lowest = 0 if kind == "uniform" else math.ulp(0.0)
    if math.isfinite(high) and lowest <= low < high:
        assert read_space(str(file), Config()) == {MEL: Axis(kind, (low, high))}
    else:
        with pytest.raises(ValueError, match=re.escape(MEL)):
            read_space(str(file), Config())


def test_values_become_what_the_configuration_takes(written):
    space = written(
        "train.learning_rate: {loguniform: [1e-5, 1e-3]}\n"
        "train.betas: {choice: [[0.8, 0.99], [0.9, 0]]}\n"
    )
    assert space["train.learning_rate"].values == (1e-5, 1e-3)
    assert space["train.betas"].values == ((0.8, 0.99), (0.9, 0.0))


def test_what_is_fixed_names_keys_of_the_configuration():
    for prefix in FIXED:
        assert attribute(Config(), prefix.rstrip(".")) is not None


@pytest.mark.parametrize(
    ("axes", "options", "named"),
    [
        ({MEL: Axis("uniform", (1.0, 2.0))}, {"search": "grid"}, f"{MEL} .*grid"),
        (
            {"model.p_dropout": Axis("uniform", (0.1, 0.2))},
            {"schedule": "pbt"},
            r"model\.p_dropout cannot change",
        ),
    ],
)
def test_a_space_that_cannot_be_searched_so_is_refused(axes, options, named):
    with pytest.raises(ValueError, match=named):
        check_search(axes, SearchOptions(**options))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"trials": 0}, "--trials is 0"),
        ({"reduction": 1}, "--reduction is 1"),
        ({"search": "optuna", "schedule": "pbt"}, "--search optuna"),
        ({"schedule": "pbt", "trials": 1}, "population"),
    ],
)
def test_impossible_options_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        SearchOptions(**options)
