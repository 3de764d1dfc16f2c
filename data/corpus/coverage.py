"""What the splits of a corpus lack: languages and speakers that nobody would score, or learn."""

from collections.abc import Iterator, Sequence

from data.shards.manifest import SPLITS

NAMES_SHOWN = 10
_CONSEQUENCE = {
    "train": "not learned",
    "validation": "no score tells how it is spoken",
}


def lacking(splits: Sequence[str], speakers: Sequence[str], languages: Sequence[str]) -> list[str]:
    """Return what to warn of, one line each.

    Args:
        splits: one of SPLITS per utterance that is kept.
        speakers: speaker of each.
        languages: language of each.
    """
    if not splits:
        return []
    if "validation" not in splits:
        return [
            "no line is held back for validation: no score will tell how the training goes "
            "(data.validation_per_speaker, data.validation_share, or `split` in the transcript)"
        ]
    return [
        *_without("language", splits, languages),
        *_without("speaker", splits, speakers),
    ]


def _without(what: str, splits: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    for split in SPLITS:
        present = {name for name, own in zip(names, splits, strict=True) if own == split}
        absent = sorted(set(names) - present)
        if absent:
            shown = ", ".join(absent[:NAMES_SHOWN])
            more = f" and {len(absent) - NAMES_SHOWN} more" if absent[NAMES_SHOWN:] else ""
            kind = "training" if split == "train" else split
            number = what if len(absent) == 1 else f"{len(absent)} {what}s"
            yield f"{number} without a {kind} line ({_CONSEQUENCE[split]}): {shown}{more}"
