"""Configuration and command lines: presets load, overrides win, mistakes are named."""

import sys
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path

import fsspec
import pytest

from data.files import keep_trying, read_file
from job.settings.checks import check
from job.settings.cli import config_of, overridden, read_config, run, to_yaml
from job.settings.config import Config, ScalingSettings
from job.settings.paths import with_absolute_paths

PRESETS = sorted((Path(__file__).parents[3] / "job/presets").glob("*.yaml"))


def cfg(*argv: str) -> Config:
    return config_of(argv)


def test_a_section_given_in_part_has_the_defaults_that_it_has_otherwise():
    def check_sections(of: object) -> None:
        for section in (value for value in vars(of).values() if is_dataclass(value)):
            assert section == type(section)()
            check_sections(section)

    check_sections(Config())
    assert cfg("--train.clip_norm.g", "500") == overridden(Config(), {"train.clip_norm.g": 500})


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_presets_load_and_survive_a_round_trip(preset, tmp_path):
    config = read_config(preset)
    check(config)
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "again.yaml") == config


def test_later_settings_win(tmp_path):
    config = cfg(
        "--config",
        "job/presets/demo.yaml",
        "--train.loss_weights.mel",
        "30",
        "--scaling.num_workers",
        "[1, 3]",
    )
    assert config.train.loss_weights.mel == 30
    assert config.scaling.bounds == (1, 3)
    assert config.data.shards == "shards/demo"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--train.lerning_rate", "1"], "train.lerning_rate"),
        (["--train.max_steps", "many"], "train.max_steps"),
        (["--train.precision", "fp8"], "train.precision"),
        (["--scaling.num_workers", "two"], "scaling.num_workers"),
        (["--train.clip_norm.g", "sometimes"], "train.clip_norm.g"),
        (["--config", "no_such_file.yaml"], "no_such_file.yaml"),
    ],
)
def test_a_mistake_is_named(argv, named):
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        cfg(*argv)


@pytest.mark.parametrize("workers", [0, [2, 1], [1, 2, 3], [0, 2]])
def test_impossible_numbers_of_workers_are_refused(workers):
    with pytest.raises(ValueError, match=r"scaling\.num_workers"):
        ScalingSettings(num_workers=workers)


def test_settings_that_do_not_fit_each_other_are_refused():
    config = read_config("job/presets/demo.yaml")
    wrong = {
        r"model\.upsample_rates": replace(
            config,
            model=replace(
                config.model, upsample_rates=(8, 8, 2, 2), upsample_kernel_sizes=(16, 16, 8, 2)
            ),
        ),
        r"train\.segment_size": replace(config, train=replace(config.train, segment_size=8191)),
        r"train\.micro_batches_per_step": replace(
            config, scaling=replace(config.scaling, num_workers=5)
        ),
        r"model\.use_spectral_norm": replace(
            config,
            model=replace(config.model, use_spectral_norm=True),
            train=replace(config.train, reduction="exact"),
        ),
        r"scaling\.collective_timeout_s is 1900: give 2700": replace(
            config, train=replace(config.train, hang_timeout_s=880)
        ),
    }
    for named, broken in wrong.items():
        with pytest.raises(ValueError, match=named):
            check(broken)


def test_local_paths_become_absolute_and_uris_and_hub_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wavlm").mkdir()
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "utmos.pt").touch()
    scorers = tmp_path / "scorers.yaml"
    scorers.write_text(
        """eval: {scorers: {
        natural: {factory: "trainable.evaluation.scorers:torchscript", path: utmos.pt},
        words: {factory: "trainable.evaluation.scorers:errors_of_recognition", path: openai/x}}}
        """
    )
    config = with_absolute_paths(
        cfg(
            "--run.storage",
            "s3://bucket/runs",
            "--data.shards",
            "here",
            "--model.slm.path",
            "wavlm",
            "--train.init_from",
            "runs/x/best",
            "--config",
            str(scorers),
        )
    )
    paths = {name: scorer.path for name, scorer in config.eval.scorers.items()}
    assert paths == {"natural": str(tmp_path / "utmos.pt"), "words": "openai/x"}
    assert config.train.init_from == str(tmp_path / "runs/x/best")
    assert config.run.storage == "s3://bucket/runs"
    assert config.data.shards == str(tmp_path / "here")
    assert config.model.slm.path == str(tmp_path / "wavlm")
    assert config.data.bert.zh == "hfl/chinese-roberta-wwm-ext-large"


def test_single_keys_are_overridden_as_on_the_command_line():
    base = read_config("job/presets/demo.yaml")
    found = overridden(
        base,
        {"train.loss_weights.mel": 30, "train.clip_norm.g": "none", "scaling.num_workers": [1, 2]},
    )
    assert (found.train.loss_weights.mel, found.train.clip_norm.g, found.scaling.bounds) == (
        30.0,
        "none",
        (1, 2),
    )
    assert overridden(
        found, {"train.loss_weights.mel": 45, "train.clip_norm.g": "reference"}
    ) == replace(base, scaling=replace(base.scaling, num_workers=[1, 2]))


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("train.loss_weights.mell", 1, "did you mean train.loss_weights.mel"),
        ("train.loss_weights", 1, "is no key"),
        ("train.max_steps", 1.5, "train.max_steps"),
        ("train.init_from", "s3://a:b@c/d", "train.init_from is a URI that holds a password"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(key, value, named):
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        overridden(Config(), {key: value})


def test_a_stores_missing_client_is_said_with_what_to_type(monkeypatch, capsys):
    fsspec.register_implementation("far", "nobodys_client.Store", errtxt="Install nobodys_client")
    monkeypatch.setattr(sys, "argv", ["command"])
    looks = [partial(each, "far://bucket/x") for each in (read_file, fsspec.core.url_to_fs)]
    for look in (*looks, partial(keep_trying, looks[0])):
        with pytest.raises(SystemExit, match="2"):
            run(lambda argv, look=look: look())
        assert capsys.readouterr().err.endswith(
            "Install nobodys_client: python -m pip install nobodys_client\n"
        )
    with pytest.raises(SystemExit, match="2"):
        run(lambda argv: missing("gcsfs"))
    assert capsys.readouterr().err.endswith(
        ": python -m pip install --requirement deploy/cloud.lock\n"
    )
    with pytest.raises(SystemExit, match="1"):  # a bug keeps its traceback, in a file
        run(lambda argv: missing(None))
    told = capsys.readouterr().err
    assert told.startswith("error: ImportError: of ours; ")
    assert told.count("\n") == 1
    log = Path(told.split("; ")[1].partition(" has the whole traceback")[0])
    assert "ImportError: of ours" in log.read_text(encoding="utf-8")
    log.unlink()


def missing(package: str | None) -> None:
    """As fsspec tells that a package is missing; or as Python does, of a name of ours."""
    if package is None:
        raise ImportError("of ours")
    raise ImportError("Please install it") from ModuleNotFoundError(name=package)
