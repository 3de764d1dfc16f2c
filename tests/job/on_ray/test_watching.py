"""A run as others see it while it trains: Ray's result and dashboard, Prometheus, MLflow."""

import pytest

from data.files import ascii_name
from job.on_ray.watching.metrics import COUNTED, REPORTED, exported
from tests.job.conftest import TWO, metrics
from tests.job.on_ray.test_results import listed


def test_each_line_of_the_log_is_reported(observed):
    steps = [step for step, checkpoint, _ in observed.reports if checkpoint is None]
    assert {1, 2, 3} <= set(steps)
    of_run = {line["step"]: line for line in metrics(observed.run)}
    for step, _, told in observed.reports:
        for tag in ("loss/g/mel", "loss/d/total", "grad_norm_g", "seconds"):
            assert told[tag] == pytest.approx(of_run[step][tag]), tag
        assert told["learning_rate"] > 0
        assert 0 <= told["share/waiting_for_data"] <= 1
        assert told["rate/utterances_per_s"] > 0
    assert {step for step, _, told in observed.reports if "eval/mel" in told} == {3, 6}


def test_rays_result_is_the_folder(observed):
    result = observed.result
    assert listed(result) == [3, 4, 6]  # and 2 is pruned
    assert result.metrics["loss/g/mel"] > 0
    assert result.metrics["step"] == 6
    assert list(result.metrics_dataframe["step"]) == [3, 4, 6]


def test_prometheus_knows_all_numbers(observed):
    numbers = observed.numbers
    absent = {"ray_bert_vits2_skipped_update"}  # of fp16 alone
    assert exported().keys() - absent <= numbers.keys()
    for name in exported().keys() - absent:
        # Ray's labels are ASCII
        assert {labels["run"] for labels, _ in numbers[name]} == {ascii_name(TWO)}, name
    assert all(0 < value < 1.5 for _, value in numbers["ray_bert_vits2_mfu"])
    clipped = numbers["ray_bert_vits2_clipped_norm"]
    assert {labels["network"] for labels, _ in clipped} == {"g"}
    assert all(value > 0 for _, value in clipped)
    losses = {labels["loss"]: value for labels, value in numbers["ray_bert_vits2_loss"]}
    assert losses["g/mel"] > 0
    assert [value for _, value in numbers["ray_bert_vits2_restarts"]] == [0]
    assert max(value for _, value in numbers["ray_bert_vits2_checkpoints"]) >= 1
    assert {number.name for number in REPORTED}.isdisjoint(COUNTED)


def test_the_train_tab_shows_the_run(observed):
    (run,) = observed.tab["train_runs"]
    assert run["status"] == "FINISHED"
    assert run["attempts"][0]["workers"][1]["world_rank"] == 1


def test_mlflow_has_the_run(observed):
    (mel,) = observed.mlflow.glob("*/*/metrics/loss/g/mel")
    assert [int(line.split()[2]) for line in mel.read_text().splitlines()][-1] == 6
