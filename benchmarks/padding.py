"""How much of an epoch is padding: `python -m benchmarks.padding [--lengths FILE] [--dump FILE]`.

It plans an epoch of 20,000 synthetic utterances (lognormal durations, mean 5 s, clipped at 1-12 s)
for two spreads, or of the lengths given, as training does by default.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from data.plan.blocks import BLOCK
from data.plan.epoch_plan import EpochPlan
from data.plan.history import Cut
from data.settings.plan import PlanConfig

UTTERANCES = 20_000
FRAMES_PER_SECOND = 44100 / 512
G = 8  # micro-batches per global step


def synthetic(sigma: float, utterances: int = UTTERANCES) -> tuple[np.ndarray, np.ndarray]:
    """Return frames and tokens (without blanks) of durations with this spread.

    Each is int64 [utterances].
    """
    rng = np.random.default_rng(0)
    spread = np.exp(sigma * rng.standard_normal(utterances) - sigma**2 / 2)
    frames = (np.clip(5 * spread, 1, 12) * FRAMES_PER_SECOND).astype(np.int64)
    tokens = 0.3 * frames * np.exp(rng.normal(0, 0.15, utterances))
    return frames, np.maximum(1, tokens).astype(np.int64)


def plan(
    frames: np.ndarray,
    tokens: np.ndarray,
    epoch: int,
    settings: PlanConfig | None = None,
    generations: np.ndarray | None = None,
) -> EpochPlan:
    """Return the plan of an epoch as training makes it of new shards, rows numbered from 0.

    Args:
        frames: frames of each utterance, int64 [n].
        tokens: phones of each without blanks, int64 [n].
        epoch: number of the epoch, from 0.
        settings: settings of the plan, by default those of the configuration.
        generations: number of the preparation that added each, int [n]; None: all of one.
    """
    cut = Cut(
        0,
        G,
        0,
        add_blank=True,
        plan=settings or PlanConfig(),
        block=BLOCK,
        generations=None if generations is None else "made up",
    )
    # a manifest is sorted by length, and its order decides between equals
    rows = np.argsort(frames, kind="stable")
    of_rows = None if generations is None else generations[rows]
    return cut.epoch_plan(rows, frames[rows], tokens[rows], epoch, generations=of_rows)


def batches(planned: EpochPlan) -> list[list[int]]:
    """Return all micro-batches in order, as lists of row numbers."""
    return [part.tolist() for part in np.split(planned.order, planned.offsets[1:-1])]


def measure(frames: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """Return shares of padding, and what is dropped or repeated, in epoch 0."""
    planned = plan(frames, tokens, 0)
    made = batches(planned)
    used = np.bincount(planned.order, minlength=len(frames))
    own_frames = sum(frames[b].sum() for b in made)
    all_frames = sum(len(b) * frames[b].max() for b in made)
    # cells of the alignment: frames times tokens
    own_cells = sum((frames[b] * tokens[b]).sum() for b in made)
    all_cells = sum(len(b) * frames[b].max() * tokens[b].max() for b in made)
    return {
        "padded_frames": 1 - own_frames / all_frames,
        "wasted_cells": 1 - own_cells / float(all_cells),
        "dropped": int((used == 0).sum()),
        "repeated": int((used - 1).clip(0).sum()),
        "utterances_per_batch": len(planned.order) / len(made),
    }


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.padding", description=__doc__)
    made.add_argument("--json", type=Path, help="write the figures, one entry per distribution")
    made.add_argument(
        "--lengths",
        type=Path,
        help="a JSON list of [frames, tokens] instead of the synthetic corpora",
    )
    made.add_argument(
        "--dump", type=Path, help="write epochs 0 and 1 as lists of lists of row numbers"
    )
    args = made.parse_args()
    if args.lengths:
        frames, tokens = np.asarray(
            json.loads(args.lengths.read_text(encoding="utf-8")), np.int64
        ).T
        corpora = {args.lengths.name: (frames, tokens)}
    else:
        corpora = {f"lognormal sigma {sigma}": synthetic(sigma) for sigma in (0.4, 0.6)}
    results = {name: measure(*corpus) for name, corpus in corpora.items()}
    for name, figures in results.items():
        print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if args.dump:
        epochs = {
            name: [batches(plan(*corpus, epoch)) for epoch in (0, 1)]
            for name, corpus in corpora.items()
        }
        dumped = next(iter(epochs.values())) if len(epochs) == 1 else epochs
        args.dump.write_text(json.dumps(dumped), encoding="utf-8")


if __name__ == "__main__":
    main()
