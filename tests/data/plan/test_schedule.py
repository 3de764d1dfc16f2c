"""The order of a run: positions, what is dealt, what is refused, and what the room imports."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import plan
from data.plan.epoch_plan import Position
from data.plan.history import Cut, begun
from data.plan.schedule import Schedule
from data.settings.plan import PlanConfig
from data.stream.orders import NO_SLOT, order_of

CUT = Cut(3, 4, 8, True, PlanConfig(max_frames=120, max_utterances=3))
MODULES = sorted(path.stem for path in Path(plan.__path__[0]).glob("*.py"))


def schedule(cut: Cut = CUT, n: int = 20) -> Schedule:
    frames = np.arange(20, 20 + n)
    return Schedule(begun(cut), np.arange(n), frames, frames // 5)


def test_uneven_shares_are_padded_with_rows_that_cost_nothing():
    order = order_of(schedule(), Position(), range(3), 3)
    assert sorted(order.slots) == [NO_SLOT, NO_SLOT, *range(4)]
    for slot, rows in zip(order.slots, order.rows, strict=True):
        assert (len(rows) == 0) == (slot == NO_SLOT)


def test_the_position_after_an_epochs_last_step_is_the_next_epochs_first():
    own = schedule()
    steps = own.plan(0).steps
    assert steps > 1
    assert own.after(Position(7, 0, steps - 2)) == Position(8, 0, steps - 1)
    assert own.after(Position(8, 0, steps - 1)) == Position(9, 1, 0)


def test_utterances_of_an_epochs_steps_are_all_that_it_plans():
    own = schedule()
    plan = own.plan(1)
    counts = [own.utterances(Position(0, 1, step)) for step in range(plan.steps)]
    assert sum(counts) == len(plan.order)


def test_a_schedule_without_utterances_is_refused_by_name():
    with pytest.raises(ValueError, match=r"train\.segment_size"):
        schedule(replace(CUT, segment_frames=100)).check(Position())
    buckets = PlanConfig(mode="buckets", bucket_boundaries=(100, 200))
    with pytest.raises(ValueError, match=r"data\.plan\.bucket_boundaries"):
        schedule(replace(CUT, plan=buckets)).check(Position())
    schedule().check(Position(9, 3, 1))


def test_plans_are_made_once():
    own = schedule()
    assert own.plan(2) is own.plan(2)


@pytest.mark.processes
@pytest.mark.parametrize("module", MODULES)
def test_the_plan_imports_numpy_alone(module):
    code = f"import sys, data.plan.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "data" in loaded
    assert not loaded & {"torch", "ray", "pyarrow", "pandas", "transformers", "fsspec", "soundfile"}
