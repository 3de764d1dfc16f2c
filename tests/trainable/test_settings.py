"""What a resumed run says of settings that changed."""

from dataclasses import replace

from job.settings.cli import to_yaml
from tests.tiny import tiny_config
from trainable.settings import changed_settings


def test_changed_keys_are_told_with_both_values():
    before = tiny_config()
    now = replace(
        before,
        train=replace(
            before.train,
            learning_rate=1e-4,
            loss_weights=replace(before.train.loss_weights, mel=30.0),
        ),
        data=replace(before.data, plan=replace(before.data.plan, max_cells=9)),
    )
    assert changed_settings(to_yaml(before), to_yaml(before)) == []
    assert changed_settings(to_yaml(before), to_yaml(now)) == [
        "data.plan.max_cells None -> 9",
        f"train.learning_rate {before.train.learning_rate} -> 0.0001",
        f"train.loss_weights.mel {before.train.loss_weights.mel} -> 30.0",
    ]


def test_keys_of_another_version_are_left_out():
    assert changed_settings(
        "train: {seed: 1, gone: 2}\nrun: {}\n", "train: {seed: 2, new: 3}\nrun: {}\n"
    ) == ["train.seed 1 -> 2"]
