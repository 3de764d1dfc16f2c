"""The reference trainer's bucket sampler, to the letter."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from data.plan.buckets import bucket_batches
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
