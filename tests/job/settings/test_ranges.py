"""Every key of the configuration refuses what it may not be, in one line, before Ray starts."""

import functools
import math
import types
from dataclasses import is_dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import ray
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.config import DataConfig
from data.settings.declared import OneLine, Range, Size, declared
from data.settings.dotted_keys import nested
from data.settings.plan import PlanConfig
from job import doctor, prepare, train
from job.settings.checks import check
from job.settings.cli import run
from job.settings.config import Config, ScalingSettings
from job.settings.keys import known_keys
from tests.tiny import demo_config
from trainable.model_config import ModelConfig
from tuning import sweep

COMMANDS = {
    "job.train": (train.main, []),
    "job.prepare": (prepare.main, []),
    "job.doctor": (doctor.main, []),
    "tuning.sweep": (sweep.main, ["--space", "losses"]),
}
# names that a user makes up, where a table has such
NAMES = {"data.bert.others": "ZH", "eval.sentences": "EN"}


def all_keys() -> dict[str, Any]:
    """Dotted key -> declared type of every value, in tables of sections too."""
    found: dict[str, Any] = {}
    for key, hint in known_keys().items():
        found[key] = hint
        if get_origin(hint) is dict:
            inner = f"{key}.{NAMES.get(key, 'name')}"
            of_values = get_args(hint)[1]
            fields = declared(of_values) if is_dataclass(of_values) else {}
            found |= {f"{inner}.{name}": field for name, field in fields.items()}
            if not fields:
                found[inner] = of_values
    return found


KEYS = all_keys()


def outside(hint: Any) -> st.SearchStrategy[Any]:
    """Draw values that a declared type may not have; it asks none of the code under test."""
    origin = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        return st.one_of(outside(args[0]), *(beyond(args[0], limit) for limit in args[1:]))
    if origin in (Union, types.UnionType):
        return outside_all(args)
    if origin is Literal:
        return st.sampled_from(["no such choice", -1, [], {}, 1.5])
    if origin in (tuple, list):
        item = outside(args[0]).map(lambda value: [value])
        return st.one_of(item, st.sampled_from(["text", {}, {"a": 1}]))
    if origin is dict:
        return st.sampled_from(["text", [1], 5, 1.5])
    return plain(hint)


def outside_all(args: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """Draw values that none of several types has."""
    numbers = [arg for arg in args if get_origin(arg) is Annotated and get_args(arg)[0] is not str]
    if numbers:  # a number, or a word, null or a list
        return st.one_of(outside(numbers[0]).filter(lambda v: v not in ([], None)), broken)
    return st.sampled_from([["x"], {"x": "y"}, {}])


broken = st.sampled_from([math.nan, math.inf, -math.inf, True, "no such word", {"a": 1}])


def plain(hint: Any) -> st.SearchStrategy[Any]:
    """Draw values of the wrong type, and numbers that are none."""
    if hint is int:
        return st.one_of(broken, st.sampled_from([1.5, [1]]))
    if hint is float:
        return st.one_of(broken, st.sampled_from([[1.0]]))
    if hint is bool:
        return st.sampled_from(["maybe", 1, 0, 1.5, [], {}])
    return st.sampled_from([["x"], {"x": "y"}, "a\0b"])


def beyond(hint: Any, limit: Any) -> st.SearchStrategy[Any]:
    """Draw values of the right type that a limit refuses."""
    if isinstance(limit, Size):
        return st.just("" if hint is str else [])
    if isinstance(limit, OneLine):
        return st.sampled_from(["a\nb", "a\r\nb"])
    assert isinstance(limit, Range)
    numbers = st.integers if hint is int else st.floats
    sides = []
    lowest = limit.low if limit.low is not None else limit.above
    highest = limit.high if limit.high is not None else limit.below
    if lowest is not None:
        sides.append(numbers(max_value=lowest - 1, min_value=lowest - 10**6))
    if highest is not None:
        sides.append(numbers(min_value=highest + 1, max_value=highest + 10**6))
    sides += [st.just(bound) for bound in (limit.above, limit.below) if bound is not None]
    return st.one_of(*sides)


def refused(main, argv, monkeypatch, capsys) -> str:
    """Run a command as its users do; return the one line by which it is refused."""
    monkeypatch.setattr("sys.argv", ["command", *argv])
    with pytest.raises(SystemExit) as end:
        run(main)
    printed = capsys.readouterr()
    assert end.value.code == 2, (argv, printed)
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """Whatever is refused is refused before Ray starts."""

    def start(*_, **__):
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", start)


@pytest.fixture(scope="module")
def made_once():
    """job.train's parser of this module: making one takes ten times as long as parsing."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "parser", functools.cache(train.parser))
        yield


def test_there_are_as_many_keys_as_the_page_says():
    assert len(KEYS) >= 150


def test_every_number_has_a_range():
    def numbers(hint: Any) -> bool:
        """Whether a number occurs that no range limits."""
        args = get_args(hint)
        if get_origin(hint) is Annotated and any(isinstance(arg, Range) for arg in args[1:]):
            return False
        if get_origin(hint) is Literal:
            return False
        return hint in (int, float) or any(numbers(arg) for arg in args if arg is not Ellipsis)

    assert [key for key, hint in KEYS.items() if numbers(hint)] == []


@pytest.mark.medium
@pytest.mark.parametrize("key", KEYS)
@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_value_outside_its_range_is_refused(key, data, made_once, tmp_path, monkeypatch, capsys):
    value = data.draw(outside(KEYS[key]))
    content = nested({key: value} | ({} if ".scorers.name" not in key else others(key)))
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    line = refused(train.main, ["--config", str(file)], monkeypatch, capsys)
    assert key in line, line
    # one that only its own section refuses stands in no line
    assert str(file) in line or key == "scaling.num_workers"


def others(key: str) -> dict[str, str]:
    """The keys that stand beside one of a scorer."""
    return {
        f"eval.scorers.name.{name}": "x" for name in ("factory", "path") if not key.endswith(name)
    }


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.max_steps", "0"),
        ("data.trim_db", ".nan"),
        ("train.betas", "[2, 3]"),
        ("eval.max_frames", "0"),
        ("scaling.num_workers", "[2, 1]"),
        ("model.slm.sampling_rate", "0"),
        ("data.mel_fmax", "50000"),
        ("data.plan.bucket_boundaries", "[]"),
        ("run.name", ""),
    ],
)
def test_every_command_refuses_it_on_its_command_line(command, key, value, monkeypatch, capsys):
    main, more = COMMANDS[command]
    line = refused(main, [*more, f"--{key}", value], monkeypatch, capsys)
    assert key in line


RELATIONS = [
    (DataConfig, {"mel_fmin": 8000, "mel_fmax": 8000}, "data.mel_fmin"),
    (DataConfig, {"mel_fmin": 23000}, "data.mel_fmin"),
    (DataConfig, {"mel_fmax": 22051}, "data.mel_fmax"),
    (DataConfig, {"win_length": 4096}, "data.win_length"),
    (DataConfig, {"hop_length": 2049}, "data.hop_length"),
    (DataConfig, {"n_mel_channels": 1026}, "data.n_mel_channels"),
    (DataConfig, {"min_seconds": 20}, "data.min_seconds"),
    (DataConfig, {"peak": 0.9, "loudness": -23.0}, "data.loudness"),
    (DataConfig, {"peak": 1.5}, "data.peak is 1.5: give a number above 0 to 1 or none"),
    (DataConfig, {"trim_db": -40.0}, "data.trim_db"),
    (DataConfig, {"trim_db": 40.0, "trim_margin": -0.1}, "data.trim_margin"),
    (PlanConfig, {"bucket_boundaries": (32, 300, 300)}, "data.plan.bucket_boundaries"),
    (ModelConfig, {"inter_channels": 191}, "model.inter_channels"),
    (ModelConfig, {"n_heads": 5}, "model.n_heads"),
    (ModelConfig, {"n_speakers": 0}, "model.n_speakers"),
    (ModelConfig, {"resblock_kernel_sizes": (3, 7)}, "model.resblock_dilation_sizes"),
    (ModelConfig, {"resblock_kernel_sizes": (3, 6, 11)}, "model.resblock_kernel_sizes"),
    (ModelConfig, {"upsample_rates": (8, 8, 2, 2)}, "model.upsample_kernel_sizes"),
    (ModelConfig, {"upsample_kernel_sizes": (16, 16, 8, 2, 3)}, "model.upsample_kernel_sizes"),
    (ModelConfig, {"upsample_initial_channel": 31}, "model.upsample_initial_channel"),
    (ScalingSettings, {"num_workers": [1, 2, 3]}, "scaling.num_workers"),
    (
        ScalingSettings,
        {"worker_resources": {"trainer": 1.0, "GPU": 0.5}},
        "scaling.worker_resources has GPU: take it out; each worker takes one whole GPU",
    ),
    (ScalingSettings, {"worker_resources": {"CPU": 2.0}}, "scaling.cpus_per_worker"),
    (ScalingSettings, {"loader_resources": {"GPU": 1.0}}, "scaling.loader_resources has GPU"),
    (ScalingSettings, {"loader_resources": {"CPU": 1.0}}, "scaling.loader_resources has CPU"),
]


@pytest.mark.parametrize(("section", "values", "key"), RELATIONS, ids=lambda each: str(each))
def test_values_that_do_not_fit_each_other_are_refused(section, values, key):
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        section(**values)


def test_sections_that_do_not_fit_each_other_are_refused():
    cfg = demo_config()
    scaling = cfg.scaling
    wrong = {
        r"collective_timeout_s is 900: give 1860 or more": replace(
            cfg, scaling=replace(scaling, collective_timeout_s=900)
        ),
        r"checkpoint\.retry_s is 1801: give 1800 or less, .* x train\.hang_timeout_s 600": replace(
            cfg,
            train=replace(cfg.train, checkpoint=replace(cfg.train.checkpoint, retry_s=1801)),
        ),
        r"num_workers 5 is more .* train\.micro_batches_per_step 4": replace(
            cfg, scaling=replace(scaling, num_workers=5)
        ),
        r"data\.hop_length": replace(cfg, data=replace(cfg.data, hop_length=256)),
    }
    for named, each in wrong.items():
        with pytest.raises(ValueError, match=named):
            check(each)


def test_a_section_is_none_but_of_its_own_kind():
    with pytest.raises(ValueError, match="train is 5: give a section of keys"):
        Config(train=5)  # type: ignore[arg-type]
