"""Blocks of utterances that lie side by side in the shards, and what the plan makes of them."""

import hashlib
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.plan.blocks import BLOCK, Blocks, strip_order
from data.plan.epoch_plan import EpochPlan, Position, plan_epoch
from data.plan.history import Change, Cut, begun, change_of, changed, plan_through, with_blocks
from data.settings.plan import CostConfig, PlanConfig

CUT = Cut(3, 2, 0, True, PlanConfig(), BLOCK)


def lengths(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = np.sort(np.clip(400 * np.exp(0.6 * rng.standard_normal(n)), 80, 1000).astype(int))
    return frames, np.maximum(1, frames * 0.3 * np.exp(rng.normal(0, 0.15, n))).astype(int)


def members(plan: EpochPlan) -> list[set[int]]:
    return [set(part.tolist()) for part in np.split(plan.order, plan.offsets[1:-1])]


@settings(deadline=None, max_examples=60)
@given(
    frames=st.lists(st.integers(1, 3000), min_size=1, max_size=200),
    size=st.integers(2, 9),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
    G=st.integers(1, 16),
    min_frames=st.integers(0, 1),
    max_utterances=st.none() | st.integers(1, 12),
    preparations=st.none() | st.integers(1, 4),
)
def test_every_utterance_exactly_once(
    frames, size, seed, epoch, G, min_frames, max_utterances, preparations
):
    frames = np.asarray(frames)
    phones = 1 + frames * 7919 % 300
    generations = preparations and np.random.default_rng(seed).integers(
        preparations, size=len(frames)
    )
    plan = plan_epoch(
        np.arange(len(frames)),
        frames,
        phones,
        seed=seed,
        epoch=epoch,
        micro_batches_per_step=G,
        max_utterances=max_utterances,
        cost=CostConfig(),
        min_frames=min_frames,
        block=size,
        generations=generations,
    )
    used = plan.order[: plan.offsets[len(plan.offsets) - 1 - plan.fill]]
    assert sorted(used.tolist()) == list(range(len(frames)))


@given(n=st.integers(1, 60), size=st.integers(2, 9), seed=st.integers(0, 99))
def test_blocks_are_neighbours_in_the_shards(n, size, seed):
    frames, phones = lengths(n)
    blocks = Blocks.of_shards(frames, phones, size, seed)
    sizes = np.diff(blocks.starts, append=n)
    assert 1 <= sizes[0] <= size
    assert (sizes[1:-1] == size).all()
    assert blocks.members.tolist() == strip_order(frames, phones).tolist()
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    parts = np.split(blocks.members, blocks.starts[1:])
    assert blocks.expanded(drawn).tolist() == np.concatenate([parts[i] for i in drawn]).tolist()
    assert blocks.most(frames).tolist() == [frames[part].max() for part in parts]


@given(
    n=st.integers(1, 300),
    size=st.integers(2, 9),
    epoch=st.integers(0, 99),
    preparations=st.integers(1, 5),
)
def test_blocks_of_a_grown_corpus_are_neighbours_of_one_preparation(n, size, epoch, preparations):
    frames, phones = lengths(n)
    generations = np.random.default_rng(epoch).integers(preparations, size=n)
    blocks = Blocks.of_shards(frames, phones, size, epoch, generations)
    assert sorted(blocks.members.tolist()) == list(range(n))
    order = strip_order(frames, phones)
    place = np.zeros(n, int)  # in the shards of its preparation
    for number in range(preparations):
        own = order[generations[order] == number]
        place[own] = np.arange(len(own))
    for block in np.split(blocks.members, blocks.starts[1:]):
        assert 1 <= len(block) <= size
        assert len(set(generations[block])) == 1
        assert (np.diff(place[block]) == 1).all()
        assert frames[block].max() <= 1.011 * frames[block].min()


def test_two_preparations_need_as_few_requests_as_one():
    frames, phones = lengths(60_000)
    generations = np.random.default_rng(0).integers(2, size=len(frames))
    order = strip_order(frames, phones)
    place = np.argsort(order[np.argsort(generations[order], kind="stable")])
    rows = np.arange(len(frames))

    def requests(cut: Cut) -> float:
        batches = members(cut.epoch_plan(rows, frames, phones, 0, generations=generations))
        runs = sum(1 + int((np.diff(np.sort(place[sorted(batch)])) > 1).sum()) for batch in batches)
        return runs / len(frames)

    assert requests(CUT) > 0.35
    assert requests(replace(CUT, generations="two")) < 0.3


def test_shards_are_in_one_order_with_or_without_blanks_and_for_any_part_of_the_corpus():
    frames, phones = lengths(3000)
    order = strip_order(frames, phones)
    assert order.tolist() == strip_order(frames.astype(np.int32), 2 * phones + 1).tolist()
    part = np.sort(np.random.default_rng(0).permutation(3000)[:1000])
    of_part = part[strip_order(frames[part], phones[part])]
    assert of_part.tolist() == [row for row in order.tolist() if row in set(part.tolist())]


def met_again(cut: Cut, frames: np.ndarray, phones: np.ndarray) -> float:
    """Return the share of the pairs of one epoch's micro-batches that the next one has too."""
    rows = np.arange(len(frames))
    first, second = (members(cut.epoch_plan(rows, frames, phones, epoch)) for epoch in (0, 1))
    where = {row: number for number, batch in enumerate(second) for row in batch}
    pairs = [(a, b) for batch in first for a in batch for b in batch if a < b]
    return float(np.mean([where[a] == where[b] for a, b in pairs]))


def test_neighbours_are_read_together_and_have_others_in_the_next_epoch():
    frames, phones = lengths(60_000)
    place = np.argsort(strip_order(frames, phones))
    batches = members(CUT.epoch_plan(np.arange(len(frames)), frames, phones, 0))
    runs = sum(1 + int((np.diff(np.sort(place[sorted(batch)])) > 1).sum()) for batch in batches)
    assert runs / len(frames) < 0.3
    assert met_again(CUT, frames, phones) < met_again(replace(CUT, block=1), frames, phones) + 0.1


def test_a_micro_batch_is_padded_as_little_as_without_blocks():
    frames, phones = lengths(60_000)
    rows = np.arange(len(frames))
    shares = []
    for cut in (CUT, replace(CUT, block=1)):
        plan = cut.epoch_plan(rows, frames, phones, 0)
        sizes = np.diff(plan.offsets)
        longest = np.maximum.reduceat(frames[plan.order], plan.offsets[:-1])
        shares.append(1 - frames[plan.order].sum() / (sizes * longest).sum())
    assert shares[0] < max(0.012, shares[1] * 1.2)


def test_a_run_goes_on_as_it_began_wherever_its_rows_lie_now():
    for began in (1, BLOCK):
        history = begun(replace(CUT, block=began))
        for now in (1, BLOCK):
            assert changed(history, Position(3, 0, 3), replace(CUT, block=now)) == history
        smaller = replace(CUT, block=6 - began, plan=PlanConfig(max_utterances=4))
        after = changed(history, Position(3, 0, 3), smaller)
        assert [change.cut.block for change in after] == [began, began]
        frames, phones = lengths(300)
        plan = plan_through(after, np.arange(300), frames, phones, 0)
        assert set(plan.order.tolist()) == set(range(300))


def test_a_run_keeps_to_the_generations_that_it_began_with():
    frames, phones = lengths(3000)
    rows, generations = np.arange(3000), np.arange(3000) % 2
    smaller = PlanConfig(max_utterances=4)
    for began, now in ((None, "two"), ("two", None), ("two", "three")):
        history = begun(replace(CUT, generations=began))
        assert changed(history, Position(3, 0, 3), replace(CUT, generations=now)) == history
        cut = replace(CUT, generations=now, plan=smaller)
        after = changed(history, Position(3, 0, 3), cut)
        assert [change.cut.generations for change in after] == [began, began]
        plan = plan_through(after, rows, frames, phones, 0, generations)
        assert plan.order.tolist() != list(range(3000))
        assert sorted(plan.order[: plan.offsets[-1 - plan.fill]].tolist()) == list(range(3000))
    by_order, by_generation = (
        plan_through(begun(replace(CUT, generations=own)), rows, frames, phones, 0, generations)
        for own in (None, "two")
    )
    alone = CUT.epoch_plan(rows, frames, phones, 0)
    assert by_order.order.tolist() == alone.order.tolist() != by_generation.order.tolist()


@pytest.mark.parametrize(
    ("mode", "digest"), [("cost", "325291e731a12103"), ("budget", "8c9a75d8eb2dcc5a")]
)
def test_shards_of_older_code_have_the_plan_that_it_made(mode, digest):
    rng = np.random.default_rng(5)
    frames = np.sort(rng.integers(20, 900, 3000))
    cut = Cut(3, 4, 32, True, PlanConfig(mode=mode), block=1)
    made = hashlib.sha256()
    for epoch in (0, 1):
        plan = cut.epoch_plan(np.arange(3000), frames, 1 + frames * 7919 % 300, epoch)
        for array in (plan.order, plan.offsets, plan.begins):
            made.update(array.astype("<i8").tobytes())
    assert made.hexdigest()[:16] == digest


def test_a_run_of_older_code_knew_of_no_blocks():
    recorded = asdict(CUT)
    del recorded["block"], recorded["generations"]
    change = change_of({"epoch": 0, "epoch_step": 0, "cut": recorded})
    assert change.cut == replace(CUT, block=1)
    assert change_of({"epoch": 0, "epoch_step": 0, "cut": asdict(CUT)}) == Change(0, 0, CUT)
    assert changed((), Position(3, 0, 3), CUT) == begun(replace(CUT, block=1))


@pytest.mark.parametrize("open_", [True, False])
def test_what_is_open_is_as_the_manifest_has_it(open_):
    history = begun(replace(CUT, block=None if open_ else 3))
    cut = with_blocks(history, BLOCK, "two")[0].cut
    assert (cut.block, cut.generations) == ((BLOCK, "two") if open_ else (3, None))
