"""Whose rows two speaker tables have: they are matched by name where both sides know names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.names import visible_name
from trainable.learning.optimizer import Moments
from trainable.run.format import CHECKSUMS, STATE, parse_info
from trainable.weights.published import DESCRIPTION

SPEAKERS = "emb_g.weight"  # [n_speakers, gin_channels]
NAMES_SHOWN = 10


@dataclass(frozen=True)
class Speakers:
    """Whose the rows of two speaker tables are.

    Attributes:
        ours: name -> row here.
        theirs: name -> row of the weights; None: they tell no names.
    """

    ours: Mapping[str, int]
    theirs: Mapping[str, int] | None

    def check(self, rows: int) -> None:
        """Refuse names of rows that the weights' table lacks.

        Args:
            rows: rows of that table.

        Raises:
            ValueError: names the first one.
        """
        for name, row in (self.theirs or {}).items():
            if not 0 <= row < rows:
                raise ValueError(
                    f"speaker {name} has row {row}, but {SPEAKERS} has {rows} rows: mend "
                    f"{DESCRIPTION}, or take it out of the folder to match rows by number"
                )

    def rows(self) -> list[tuple[int, int]]:
        """Return pairs (row here, row there) of the speakers that both have."""
        theirs = self.theirs or {}
        return [(row, theirs[name]) for name, row in self.ours.items() if name in theirs]

    def report(self) -> str:
        """Return who is taken over, who is new, and who is left out."""
        theirs = self.theirs or {}
        both = [name for name in self.ours if name in theirs]
        new = [name for name in self.ours if name not in theirs]
        left_out = [name for name in theirs if name not in self.ours]
        return (
            f"{SPEAKERS} is matched by name: {len(both)} speakers are taken over, {len(new)} are "
            f"new and keep their initial rows{_named(new)}, {len(left_out)} are left "
            f"out{_named(left_out)}"
        )


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
    return f" ({shown})" if names else ""


def speakers_of(folder: Path) -> dict[str, int] | None:
    """Return speaker name -> row of weights; None if they tell no names.

    Args:
        folder: local folder of published files, or of a checkpoint that was read.

    Raises:
        ValueError: the names cannot be read.
    """
    if (folder / CHECKSUMS).exists():
        return parse_info((folder / STATE).read_bytes(), f"{folder}/{STATE}").speakers
    described = folder / DESCRIPTION
    if not described.exists():
        return None
    try:
        speakers = json.loads(described.read_bytes()).get("data", {}).get("spk2id", {})
        named = {name: _row(name, row) for name, row in as_lists_name_them(speakers).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{DESCRIPTION} does not tell its speakers, data.spk2id ({error}): mend it, or take it "
            "out of the folder to match rows by number"
        ) from error
    return named or None


def as_lists_name_them(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of speakers by the names that transcripts have for them.

    Raises:
        ValueError: two of its names are one, as people see them.
    """
    found: dict[str, Any] = {}
    for name, row in table.items():
        if (seen := visible_name(name)) in found:
            raise ValueError(f"data.spk2id names {seen} twice: leave one of them")
        found[seen] = row
    return found


def _row(name: str, row: Any) -> int:
    """Return a row of the table, which may be written as a text.

    Raises:
        ValueError: it is no whole number.
    """
    if isinstance(row, bool) or (isinstance(row, float) and not row.is_integer()):
        raise ValueError(f"{name} is {row!r}, no whole number")
    return int(row)


def match_speakers(
    speakers: Speakers,
    weights: dict[str, Tensor],
    moments: Moments,
    own: Mapping[str, Tensor],
) -> str | None:
    """Bring the speaker table of a file to the rows that our speakers have here, in place.

    Args:
        speakers: whose the rows are.
        weights: tensors of the file.
        moments: optimizer's state of the file.
        own: tensors of the network.

    Returns:
        What to report; None without two tables of one width.

    Raises:
        ValueError: a speaker of theirs has no row.
    """
    if SPEAKERS not in weights or SPEAKERS not in own:
        return None
    theirs, ours = weights[SPEAKERS], own[SPEAKERS]
    if theirs.shape[1:] != ours.shape[1:]:
        return None
    if speakers.theirs is None:
        return f"{SPEAKERS}: the weights name no speakers, rows are matched by number"

    speakers.check(len(theirs))
    pairs = speakers.rows()
    weights[SPEAKERS] = rows_taken(theirs, ours, pairs)
    moments[SPEAKERS] = {
        key: rows_taken(t, torch.zeros_like(ours), pairs) if t.shape == theirs.shape else t
        for key, t in moments.get(SPEAKERS, {}).items()
    }
    return speakers.report()


def rows_taken(theirs: Tensor, ours: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Return a table like `ours` with rows of `theirs`, for pairs (row of ours, row of theirs)."""
    table = ours.clone()
    for row, other in pairs:
        table[row] = theirs[other].to(ours)
    return table
