"""What the first pass finds out about lines, kept in parts so that a killed run loses little.

A part is a Parquet file of RECORDS in the folder `survey` beside the shards. The next run reads all
parts: it takes over what was found out about a line whose recording has not changed since.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.corpus.recipe import Recipe
from data.corpus.tables.files import TableFile
from data.corpus.tables.known import Known
from data.corpus.tables.lines import Lines
from data.corpus.tables.parts import list_parts, read_part, remove_parts, write_part
from data.corpus.tables.records import LINE, RECORDS, blank
from data.corpus.tables.shard_rows import KEY, HeldRows, counted

PARTS = 400  # of one survey: what a killed run loses, beside the blocks in progress
LEAST_ROWS = 64  # of such a part
LEAST_ROWS_AT_THE_END = 4096
# of a record, beside what the shards hold
_IN_SHARDS = ["asked", "recording", "version", "key", "audio", "unread"]


class Surveyed:
    """What is known of each line of a transcript; some 90 bytes of memory per line.

    Args:
        lines: lines of the transcript.
        shards: folder or URI of the shards; None to keep no parts.

    Attributes:
        ended: whether the line was surveyed, bool [lines].
        rejected: line -> reason and detail.
        read: whether its text was read, bool [lines].
        unread: line -> characters that no rule read, where there are any.
        key: KEY [lines].
        audio: half of data.corpus.recipe.audio_digest, KEY [lines].
        samples: int64 [lines]; 0, as `phone_count`, where a shard holds the row.
        phone_count: int32 [lines].
    """

    def __init__(self, lines: Lines, shards: str | None = None) -> None:
        self.lines = lines
        self.shards = shards
        count = len(lines)
        self.ended = np.zeros(count, bool)
        self.rejected: dict[int, tuple[str, str]] = {}
        self.read = np.zeros(count, bool)
        self.unread: dict[int, str] = {}
        self.key = np.zeros(count, KEY)
        self.audio = np.zeros(count, KEY)
        self.samples = np.zeros(count, np.int64)
        self.phone_count = np.zeros(count, np.int32)
        self._place = np.full(count, -1)  # row of the records
        self._records = TableFile(RECORDS)
        self._waiting: list[pa.Table] = []  # records of the next part
        self._parts = [] if shards is None else list_parts(shards)
        self._changed = False

    def blocks(
        self, recipe: Recipe, circumstances: dict[str, str], held: HeldRows, size: int
    ) -> TableFile:
        """Return the lines as batches of LINE, with what earlier runs found out about each.

        Args:
            recipe: recipe of the rows.
            circumstances: see data.corpus.tables.records.circumstances.
            held: rows of the shards.
            size: lines per batch.
        """
        for part in self._parts:
            self._records.append(read_part(part))
        known = Known(self._records, recipe, circumstances, held)
        made = TableFile(LINE)
        for start in range(0, len(self.lines), size):
            lines = self.lines[start : start + size]
            versions, keys, places = known.of(lines)
            self._place[start : start + len(lines)] = places
            columns = {name: [getattr(line, name) for line in lines] for name in LINE.names[2:7]}
            columns["line"] = list(range(start, start + len(lines)))
            columns["place"] = [f"{line.source}:{line.number}" for line in lines]
            made.append(pa.table(columns | {"version": versions, "key": keys}, schema=LINE))
        return made

    def add(self, found: pa.Table) -> None:
        """Take over rows of SURVEYED, none of which has a problem."""
        same = pc.coalesce(found.column("same"), pa.scalar(value=False))
        self._keep(found.filter(pc.invert(same)))
        known = found.filter(same)
        if not known.num_rows:
            return
        before = self._records.take(self._place[_lines_of(known)], RECORDS.names)
        audio = pc.coalesce(known.column("audio"), before.column("audio"))
        # equal keys mean equal texts, read by the same front end
        same_text = pc.equal(known.column("key"), before.column("key"))
        unread = pc.if_else(same_text, before.column("unread"), pa.scalar(None, pa.string()))
        known = _with(known, {"audio": audio, "unread": unread})
        # a record of another line, or of other settings, tells of the recording alone
        of_line = pc.equal(known.column("asked"), before.column("asked"))
        self._keep(known.filter(pc.invert(of_line)))
        known, before = known.filter(of_line), before.filter(of_line)
        moved = pc.not_equal(known.column("version"), before.column("version"))
        moved = pc.coalesce(moved, pa.scalar(value=True))
        version = known.column("version")
        updated = _with(before, {"version": version}).add_column(0, "line", known.column("line"))
        self._keep(updated.filter(moved))
        self._note(updated.filter(pc.invert(moved)))

    def flush(self) -> None:
        """Write what is in no part yet as one."""
        if not self._waiting:
            return
        part = pa.concat_tables(self._waiting)
        self._waiting = []
        self._records.append(part)
        if self.shards is not None:
            self._parts.append(write_part(self.shards, part))

    def take(self, lines: np.ndarray, columns: list[str]) -> pa.Table:
        """Return columns of RECORDS of some lines."""
        return self._records.take(self._place[lines], columns)

    def count_phones(self, lines: np.ndarray) -> Counter[str]:
        """Return how often each phone occurs in some lines."""
        return counted(pc.list_flatten(self.take(lines, ["phones"]).column("phones")))

    def compact(self, kept: np.ndarray) -> None:
        """Replace the parts by few that tell what is known of this transcript's lines.

        Args:
            kept: lines whose rows shards hold by now, and with them their phones, int64 [n].
        """
        if self.shards is None or not self._changed:
            return
        in_shards = np.zeros(len(self.lines), bool)
        in_shards[kept] = True
        before, self._parts = self._parts, []
        size = max(LEAST_ROWS_AT_THE_END, len(self.lines) // PARTS)
        for start in range(0, len(self.lines), size):
            lines = np.arange(start, min(start + size, len(self.lines)))
            there = in_shards[lines]
            records = [
                blank(self.take(lines[there], _IN_SHARDS)),
                self.take(lines[~there & self.ended[lines]], RECORDS.names),
            ]
            self._parts.append(write_part(self.shards, pa.concat_tables(records)))
        remove_parts(before)

    def _keep(self, rows: pa.Table) -> None:
        """Note rows of LINE's `line` and RECORDS, for the next part too."""
        if not rows.num_rows:
            return
        self._note(rows)
        waiting = sum(table.num_rows for table in self._waiting)
        place = len(self._records) + waiting + np.arange(rows.num_rows)
        self._place[_lines_of(rows)] = place
        self._waiting.append(rows.select(RECORDS.names))
        self._changed = True
        if waiting + rows.num_rows >= max(LEAST_ROWS, len(self.lines) // PARTS):
            self.flush()

    def _note(self, rows: pa.Table) -> None:
        """Hold what lines are judged by."""
        lines = _lines_of(rows)
        self.ended[lines] = True
        for name, array in (("key", self.key), ("audio", self.audio)):
            column = rows.column(name).fill_null("")
            array[lines] = column.to_numpy(zero_copy_only=False).astype(array.dtype)
        self.samples[lines] = rows.column("samples").fill_null(0).to_numpy()
        counts = pc.list_value_length(rows.column("phones")).fill_null(0)
        self.phone_count[lines] = counts.to_numpy()
        self.read[lines] = pc.is_valid(rows.column("unread")).to_numpy()
        some = rows.filter(pc.greater(pc.utf8_length(rows.column("unread")), 0))
        for row in some.select(["line", "unread"]).to_pylist():
            self.unread[row["line"]] = row["unread"]
        bad = rows.filter(pc.is_valid(rows.column("reason"))).select(["line", "reason", "detail"])
        for row in bad.to_pylist():
            self.rejected[row["line"]] = (row["reason"], row["detail"])


def _lines_of(rows: pa.Table) -> np.ndarray:
    return rows.column("line").to_numpy()


def _with(table: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """Return a table with other values in some columns."""
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), values)
    return table
