"""Which utterances are held back for validation."""

import hashlib
from collections.abc import Mapping

import numpy as np

from data.config import DataConfig
from data.corpus.tables.rows import Rows
from data.shards.manifest import SPLITS


def decide_splits(cfg: DataConfig, rows: Rows) -> np.ndarray:
    """Return the number in SPLITS of each row, int8 [rows]: one speaker's after another's."""
    speakers, _ = rows.codes("speaker")
    splits = np.zeros(len(rows), np.int8)
    order = np.argsort(speakers, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(speakers[order])) + 1):
        table = rows.columns(members, ["id", "split"])
        ids = table.column("id").to_pylist()
        given = zip(ids, table.column("split").to_pylist(), strict=True)
        found = split_of(
            dict.fromkeys(ids, ""),
            per_speaker=cfg.validation_per_speaker,
            share=cfg.validation_share,
            seed=cfg.split_seed,
            given={name: split for name, split in given if split},
        )
        splits[members] = [SPLITS.index(found[name]) for name in ids]
    return splits


def combinations(rows: Rows, splits: np.ndarray) -> list[tuple[str, str, str]]:
    """Return the different splits, speakers and languages of rows, that occur together."""
    speakers, names = rows.codes("speaker")
    languages, codes = rows.codes("language")
    found = np.unique(np.stack([splits, speakers, languages]), axis=1).T.tolist()
    return [(SPLITS[split], names[name], codes[code]) for split, name, code in found]


def split_of(
    speakers: Mapping[str, str],
    per_speaker: int,
    share: float,
    seed: int = 0,
    given: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Decide which utterances are held back for validation: each speaker's with the lowest hashes.

    An utterance whose hash lies below `share` is held back whatever else the corpus holds, so that
    the splits of a growing corpus stay what they were. A speaker always keeps one utterance for
    training, unless the transcript holds back all of them.

    Args:
        speakers: utterance id -> speaker.
        per_speaker: utterances per speaker that are held back at least, given ones counted.
        share: share of the utterances that is held back.
        seed: seed of the hash.
        given: utterance id -> split, for those whose transcript names one.

    Returns:
        Utterance id -> one of SPLITS.
    """
    given = given or {}
    splits = dict.fromkeys(speakers, "train") | dict(given)
    utterances: dict[str, list[str]] = {}
    for utterance, speaker in speakers.items():
        utterances.setdefault(speaker, []).append(utterance)

    for members in utterances.values():
        free = [utterance for utterance in members if utterance not in given]
        ranked = sorted((_hash(utterance, seed), utterance) for utterance in free)

        missing = per_speaker - sum(splits[utterance] == "validation" for utterance in members)
        held_back = max(missing, sum(value < share for value, _ in ranked), 0)
        trained = any(splits[utterance] == "train" for utterance in members if utterance in given)
        if not trained:
            held_back = min(held_back, len(ranked) - 1)
        for _, utterance in ranked[:held_back]:
            splits[utterance] = "validation"
    return splits


def _hash(utterance: str, seed: int) -> float:
    """Return a number in [0, 1) that follows from an id."""
    digest = hashlib.sha256(f"{seed}\0{utterance}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
