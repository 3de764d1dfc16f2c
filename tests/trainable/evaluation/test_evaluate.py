"""Validation: the same numbers for any number of workers, and in an evaluation afterwards."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from data.stream.evaluation import EvaluationUtterance
from tests.processes import run_in_processes
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable.evaluation.evaluate import Evaluation, check_metric, evaluate, score_tags

TOTAL = 3


def loudness(wave, sampling_rate, utterance, recording) -> float:
    return float(np.abs(wave).mean())


def scored(rank: int, world_size: int) -> Evaluation:
    torch.set_num_threads(1)
    cfg = tiny_config()
    g = tiny_state(cfg).nets["g"]
    languages = ("ZH", "JP", "EN")
    own = [
        EvaluationUtterance(n, n, tiny_batch(cfg, n, utterances=1, frames=60), "text", languages[n])
        for n in range(rank, TOTAL, world_size)
    ]
    cfg_eval = replace(cfg.eval, syntheses=2, samples=1, max_frames=80)
    result = evaluate(g, own, TOTAL, cfg_eval, cfg.data, 7, {"loudness": loudness})
    assert g.training
    return result


def worker(rank: int, world_size: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size
    )
    result = scored(rank, world_size)
    np.save(f"{folder}/{rank}.npy", result.table)
    assert len(result.samples) == (1 if rank == 0 else 0)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone() -> Evaluation:
    return scored(0, 1)


@pytest.mark.processes
def test_two_workers_find_the_same_numbers(alone, tmp_path):
    run_in_processes(worker, 2, str(tmp_path), count=2)
    for rank in range(2):
        assert np.array_equal(np.load(tmp_path / f"{rank}.npy"), alone.table, equal_nan=True)


def test_every_score_is_there(alone):
    assert alone.tags == score_tags(2, ["loudness"])
    table = dict(zip(alone.tags, alone.table.T, strict=True))
    for tag in ("mel", "kl", "dur"):
        assert np.isfinite(table[tag]).all()
    for tag in ("mcd", "mcd_sdp", "vuv_error", "duration_ratio", "loudness", "loudness_sdp"):
        assert np.isfinite(table[tag][:2]).all()
        assert np.isnan(table[tag][2])  # not synthesised
    sample = alone.samples[0]
    assert set(sample["audio"]) == {"gt/audio_0", "gen/audio_0_True", "gen/audio_0_False"}
    assert set(sample["mels"]) == {"gt/mel_0", "gen/mel_0"}
    assert sample["alignments"]["gen/attn_0"].shape[1] == 21


def test_means_leave_out_what_has_no_score():
    result = Evaluation(("mel", "mcd", "f0"), np.array([[1.0, 4.0, np.nan], [3.0, np.nan, np.nan]]))
    assert result.means(groups=["EN", "ZH"]) == {
        "eval/mel": 2.0,
        "eval/mcd": 4.0,
        "eval/mel/EN": 1.0,
        "eval/mcd/EN": 4.0,
        "eval/mel/ZH": 3.0,
    }
    assert result.means(groups=["EN", "EN"]) == {"eval/mel": 2.0, "eval/mcd": 4.0}


def test_a_metric_that_no_validation_gives_is_refused():
    cfg = tiny_config()
    check_metric(cfg.train, cfg.eval)
    for metric, good in {
        "eval/mcd": True,
        "eval/mcd/EN": True,
        "loss/g/total": False,
        "eval/ema_mcd": False,
    }.items():
        train = replace(cfg.train, checkpoint=replace(cfg.train.checkpoint, metric=metric))
        if good:
            check_metric(train, cfg.eval)
        else:
            with pytest.raises(
                ValueError, match=r"train\.checkpoint\.metric is .*choose one of eval/mel"
            ):
                check_metric(train, cfg.eval)
