"""Configuration files lose nothing: each mistake is named with its file and line."""

from pathlib import Path

import pytest

from job.settings.cli import config_of, read_config

REFUSED = {
    "train: 5": ":1: the section train is 5: give it keys",
    "train: [seed, 3]": ":1: the section train is a list",
    "seed\n": ":1: is seed: give it keys",
    "- train": ":1: is a list",
    "train: {seed: 1}\nrun: {name: a}\ntrain: {max_steps: 2}": ":3: train is given twice",
    "train:\n  seed: 1\n  seed: 1": ":3: train.seed is given twice, before in line 2: keep one",
    "eval:\n  sentences:\n    EN: a\n    EN: b": ":4: eval.sentences.EN is given twice",
    "train:\n  sed: 3": ":2: train.sed is no key of the configuration: did you mean train.seed?",
    "train.seed: 3": ":1: train.seed is no key of a file, whose sections lie in each other: write"
    " train: {seed: ...}",
    "max_steps: 3": ":1: max_steps is no key of the configuration: did you mean train.max_steps?",
    "train: {learningrate: 1}": "did you mean train.learning_rate?",
    "train:\n\n  max_steps: many": ":3: train.max_steps is 'many': give a whole number from 1",
    "train: {deterministic: 1}": ":1: train.deterministic is 1: give true or false",
    "eval: {scorers: {a: {factory: x, pth: y}}}": ":1: eval.scorers.a.pth is no key",
    "train: [1": ":1: is not YAML",
    "train:\n\tseed: 3": ":2: is not YAML",
    "a: &a [*a]": ":1: a is no key",
    "[" * 4000: "is nested too deeply",
    "train: {seed: 1}\n---\nrun: {name: b}": ":2: is not YAML: expected a single document",
    "? [a, b]\n: 5": ":1: the file has a key that is no name",
    "run: {name: \x07}": "is not YAML",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_loses_a_setting_is_refused_with_its_line(text, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as refused:
        read_config(file)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(str(file))
    assert REFUSED[text] in line


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("run: {name: 我的声音}".encode("gbk"), ":1: is another encoding, not UTF-8"),
        ("train: {seed: 3}\nrun: {name: ü}".encode("latin-1"), ":2: is another encoding"),
        ("run: {name: a}".encode("utf-16"), ":1: is UTF-16, not UTF-8: save the file as UTF-8"),
    ],
)
def test_other_encodings_are_named(content, named, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=named):
        read_config(file)


@pytest.mark.parametrize("text", ["", "# train: {seed: 3}\n", "train:\n", "\ufefftrain:\n  #\n"])
def test_a_file_without_settings_changes_nothing(text, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    assert read_config(file) == config_of([])


def test_text_stays_as_it_was_written(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "run: {name: 007, storage: 1.10}\n"
        "model: {resblock: 1}\n"
        "train: {learning_rate: 2e-4, betas: [8e-1, 0.99], freeze: [1e3, no]}\n"
        "eval: {sentences: {NO: yes}}\n",
        encoding="utf-8",
    )
    cfg = read_config(file)
    assert (cfg.run.name, cfg.run.storage, cfg.model.resblock) == ("007", "1.10", "1")
    assert (cfg.train.learning_rate, cfg.train.betas) == (2e-4, (0.8, 0.99))
    assert cfg.train.freeze == ("1e3", "no")
    assert cfg.eval.sentences == {"NO": "yes"}


def test_an_anchor_gives_its_keys_to_another_section(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "train: &all {seed: 7, max_steps: 5}\ndata: {plan: &plan {max_frames: 5}}\n",
        encoding="utf-8",
    )
    assert read_config(file).train.max_steps == 5
    file.write_text(
        "train:\n  clip_norm: &c {g: 5, d: 6}\n  learning_rates: {<<: *c, d: 7}\n",
        encoding="utf-8",
    )
    rates = read_config(file).train.learning_rates
    assert (rates.of("g"), rates.of("d")) == (5, 7)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["--train.max_st", "4"],
            "--train.max_st is no option of this command: did you mean --train.max",
        ),
        (["--train.learningrate", "1"], "did you mean --train.learning_rate?"),
        (["--train", "5"], "--train is a section: give its keys one by one, as --train.seed"),
        (["--trian.seed", "5"], "--trian.seed is no option of this command: did you mean --train."),
        (["--train.max_steps", "x"], "train.max_steps is 'x': give a whole number from 1"),
        (["--train.max_steps"], "expected one argument"),
        (["--config", "/no/such.yaml"], "--config /no/such.yaml: No such file or directory"),
        (["--config", "/"], "--config /: Is a directory"),
        (["--config="], "--config: '' is no path"),
        (["--train.loss_weights", "{mel: 5}"], "--train.loss_weights is a section"),
        (["--eval.scorers", "{a: {factory: x}}"], "eval.scorers: "),
    ],
)
def test_a_command_line_is_refused_in_one_line(argv, line):
    with pytest.raises(ValueError) as refused:
        config_of(argv)
    assert "\n" not in str(refused.value)
    assert line in str(refused.value)


def test_files_of_any_name_are_read(tmp_path):
    for name in ("a b [v2].yaml", "我的.yaml", "{x}*.yaml", "100%#.yaml"):
        file = Path(tmp_path, name)
        file.write_text("train: {seed: 7}\n", encoding="utf-8")
        assert config_of([f"--config={file}"]).train.seed == 7
