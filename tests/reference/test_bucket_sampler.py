"""The reference trainer's bucket sampler, to the letter."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from data.plan.buckets import bucket_batches
from data.plan.epoch_plan import Position
from data.plan.history import Cut, begun
from data.plan.schedule import Schedule
from data.settings.plan import PlanConfig
from tests.reference.goldens import OWN, REFERENCE

FILE = REFERENCE.json("bucket_sampler")


def cases_of(name: str) -> list[dict[str, Any]]:
    """The cases of a list of lengths; those that ended in an error made no batches."""
    return [case for case in FILE["cases"] if case["lengths"] == name and not case["error"]]


def batches_of(case: dict[str, Any]) -> list[list[int]]:
    options = {key: case[key] for key in ("num_replicas", "rank", "epoch", "shuffle")}
    return bucket_batches(
        FILE["lengths"][case["lengths"]], case["batch_size"], case["boundaries_in"], **options
    )


def test_all_cases_are_run():
    assert (
        sum(len(cases_of(name)) for name in FILE["lengths"])
        == sum(not case["error"] for case in FILE["cases"])
        > 0
    )


def test_no_case_of_the_projects_copy_is_left_out():
    assert not any(case["error"] for case in OWN.json("bucket_sampler")["cases"])


@pytest.mark.parametrize("name", FILE["lengths"])
def test_batches(name):
    for case in cases_of(name):
        batches = batches_of(case)
        assert batches == case["batches"], {
            key: value for key, value in case.items() if key != "batches"
        }
        assert len(batches) == case["len"]
        assert sum(map(len, batches)) == case["num_samples"]


@pytest.mark.parametrize("name", FILE["lengths"])
def test_buckets(name):
    """A batch is of one bucket; samples per bucket are counted over all replicas."""
    for case in cases_of(name):
        buckets = np.searchsorted(case["boundaries_in"], FILE["lengths"][name], side="left")
        batches = [set(buckets[batch].tolist()) for batch in batches_of(case)]
        assert all(len(batch) == 1 for batch in batches)
        counts = Counter(bucket for batch in batches for bucket in batch)
        samples = [counts[b] * case["batch_size"] * case["num_replicas"] for b in sorted(counts)]
        assert samples == case["num_samples_per_bucket"]


def batches_of_training(lengths, batch_size, boundaries, replicas, rank, epoch, seed=5):
    """The batches of a worker as the training's schedule deals them, one per global step."""
    plan = PlanConfig(
        mode="buckets", max_utterances=batch_size, bucket_boundaries=tuple(boundaries)
    )
    cut = Cut(seed, replicas, segment_frames=32, add_blank=True, plan=plan)
    rows = np.arange(len(lengths))
    schedule = Schedule(begun(cut), rows, np.asarray(lengths), np.ones_like(rows))
    epoch_plan = schedule.plan(epoch)
    found = []
    for step in range(epoch_plan.steps):
        (number,) = schedule.shares(Position(step, epoch, step), replicas)[rank]
        found.append(epoch_plan.micro_batch(step, number).tolist())
    return found


@pytest.mark.parametrize("name", FILE["lengths"])
def test_batches_of_the_training_are_the_samplers(name):
    for case in cases_of(name):
        if case["shuffle"]:
            settings = (case["batch_size"], case["boundaries_in"], case["num_replicas"])
            lengths = FILE["lengths"][name]
            made = batches_of_training(lengths, *settings, case["rank"], case["epoch"])
            assert made == case["batches"]


@pytest.mark.parametrize("replicas", [1, 2, 8])
def test_any_number_of_workers_trains_on_the_samplers_batches(replicas):
    """Of four epochs; on one bucket at a time, and whatever the seed is."""
    lengths, boundaries = FILE["lengths"]["lognormal"], PlanConfig().bucket_boundaries
    for epoch in range(4):
        ranks = [
            batches_of_training(lengths, 4, boundaries, replicas, rank, epoch, seed=rank)
            for rank in range(replicas)
        ]
        for rank, made in enumerate(ranks):
            sampled = bucket_batches(
                lengths, 4, boundaries, num_replicas=replicas, rank=rank, epoch=epoch
            )
            assert made == sampled
        for step in zip(*ranks, strict=True):
            bucket = np.searchsorted(boundaries, [lengths[i] for batch in step for i in batch])
            assert len(set(bucket.tolist())) == 1
