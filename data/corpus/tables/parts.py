"""Parts of a survey: Parquet files in the folder `survey` beside the shards."""

import io
import time
import uuid

import pyarrow as pa
import pyarrow.parquet as pq

from data.corpus.tables.records import RECORDS, VERSION, blank
from data.files import below, list_folder, put_file, read_file, remove_file
from data.quality.measures import MEASURES

FOLDER = "survey"
_SUFFIX = ".parquet"
_VERSION = b"survey_version"


def list_parts(shards: str) -> list[str]:
    """Return the parts beside shards, in the order in which they were written."""
    names = list_folder(below(shards, FOLDER))
    return [below(shards, f"{FOLDER}/{name}") for name in names if name.endswith(_SUFFIX)]


def write_part(shards: str, records: pa.Table) -> str:
    """Write rows of RECORDS; return the file or URI."""
    uri = below(shards, f"{FOLDER}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}{_SUFFIX}")
    sink = io.BytesIO()
    stamped = records.replace_schema_metadata({_VERSION: str(VERSION)})
    pq.write_table(stamped, sink, compression="zstd", write_statistics=False)
    put_file(uri, sink.getvalue())
    return uri


def read_part(uri: str) -> pa.Table:
    """Return rows of RECORDS; none of a part that other code wrote, or that is damaged.

    Its lines are surveyed again.

    Raises:
        OSError: it cannot be read.
    """
    content = read_file(uri)
    try:
        table = pq.read_table(pa.BufferReader(content))
        if (table.schema.metadata or {}).get(_VERSION) == str(VERSION).encode():
            if MEASURES.names[0] not in table.column_names:
                table = blank(table)
            return table.select(RECORDS.names).cast(RECORDS)
    except (pa.ArrowException, OSError, KeyError) as error:  # OSError: Arrow's, it is read already
        print(f"warning: {uri} is damaged ({error}): its lines are surveyed again", flush=True)
    return RECORDS.empty_table()


def remove_parts(uris: list[str]) -> None:
    """Remove parts whose records others hold by now."""
    for uri in uris:
        remove_file(uri)
