"""Recordings inside of a Parquet file are found whatever its row groups are, and read in order."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.audio import embedded
from data.audio.embedded import embedded_uri, read_embedded
from data.rejected import RejectedError


def write(file: str, contents: list[bytes | None], rows: int) -> None:
    table = pa.table({"audio": [{"bytes": each, "path": "x.wav"} for each in contents]})
    pq.write_table(table, file, row_group_size=rows)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_each_row_is_found_and_the_footer_read_once(tmp_path, monkeypatch, rows) -> None:
    file = str(tmp_path / "many.parquet")
    contents = [str(number).encode() for number in range(40)]
    write(file, contents, rows)
    opened = []
    parquet = pq.ParquetFile
    monkeypatch.setattr(
        embedded.pq, "ParquetFile", lambda *args: opened.append(args) or parquet(*args)
    )
    order = [*range(40), 7, 39, 0]
    assert [read_embedded(embedded_uri(file, "audio", row)) for row in order] == [
        contents[row] for row in order
    ]
    assert len(opened) == 1


def test_a_file_that_was_replaced_is_read_again(tmp_path) -> None:
    file = str(tmp_path / "replaced.parquet")
    write(file, [b"before", b"second"], 1)
    os.utime(file, (1, 1))
    assert read_embedded(embedded_uri(file, "audio", 1)) == b"second"
    write(file, [b"after", None], 2)
    os.utime(file, (9, 9))
    assert read_embedded(embedded_uri(file, "audio", 0)) == b"after"
    with pytest.raises(RejectedError, match=r"row 2 of .* holds no recording"):
        read_embedded(embedded_uri(file, "audio", 1))
    with pytest.raises(RejectedError, match="it has 2 rows"):
        read_embedded(embedded_uri(file, "audio", 2))
