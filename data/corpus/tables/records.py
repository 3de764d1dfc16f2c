"""The columns of the first pass: what it is given, what it finds, what is kept of it."""

import json
from collections.abc import Mapping

import pyarrow as pa

from data.config import DataConfig
from data.corpus.recipe import Recipe
from data.corpus.tables.files import hash64
from data.quality.measures import MEASURES

VERSION = 2  # of RECORDS, and of what the first pass checks: older ones are not taken over

LINE = pa.schema(
    [("line", pa.int64())]  # among the usable lines of the transcript, from 0
    + [(name, pa.string()) for name in ("place", "id", "speaker", "language", "text", "uri")]
    # if the recording has this data.files.content_version, or the row this key, then what is known
    # of the line is still true
    + [(name, pa.string()) for name in ("version", "key")]
)
RECORDS = pa.schema(
    [
        ("asked", pa.uint64()),  # hash of all that a record follows from, but the recording
        ("recording", pa.uint64()),  # hash of the recording's URI
        ("version", pa.string()),  # data.files.content_version of it
        ("reason", pa.string()),  # why the line is rejected; lengths and phones are then null
        ("detail", pa.string()),
        ("key", pa.string()),  # null if the recording cannot be read
        ("audio", pa.string()),  # data.corpus.recipe.audio_digest of the recording
        ("unread", pa.string()),  # characters that no rule read; null if the text was not read
        ("samples", pa.int64()),  # null, as all below, if a shard holds the row
        ("norm_text", pa.string()),
        ("phones", pa.list_(pa.string())),
        ("tones", pa.list_(pa.int8())),
        ("word2ph", pa.list_(pa.int16())),
        ("bert_text", pa.string()),
        ("bert_tokens", pa.list_(pa.string())),
        *MEASURES,  # null in what older code wrote
    ]
)
SURVEYED = pa.schema(
    [
        ("line", pa.int64()),
        ("problem", pa.string()),  # why the whole run stops; all below is then null
        # what is known of the line is still true: all below is null but the columns up to `key`,
        # and `audio` where the recording was read
        ("same", pa.bool_()),
        *RECORDS,
    ]
)


def circumstances(cfg: DataConfig, recipe: Recipe) -> dict[str, str]:
    """Return language -> all that a record of one of its lines follows from, but the line."""
    common = [VERSION, recipe.settings, cfg.min_seconds, cfg.max_seconds]
    return {
        language: json.dumps(
            [*common, front_end, recipe.berts[language], recipe.max_tokens[language]],
            sort_keys=True,
        )
        for language, front_end in recipe.front_ends.items()
    }


def asked(circumstances: Mapping[str, str], line: Mapping[str, str]) -> int:
    """Return `asked` of a line, which has the names of LINE."""
    parts = [line[name] for name in ("id", "uri", "speaker", "language", "text")]
    return hash64("\0".join([circumstances[line["language"]], *parts]))


def blank(table: pa.Table) -> pa.Table:
    """Return a table with all of RECORDS: those that it lacks are null."""
    columns = [
        table.column(field.name)
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, field.type)
        for field in RECORDS
    ]
    return pa.table(columns, schema=RECORDS)
