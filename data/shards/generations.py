"""Which preparation added which row of a corpus that has grown.

Each writes its new rows in an order of its own, so that the plan forms blocks of neighbours within
one of them (data.plan.blocks). The numbers go from manifest to manifest by the rows' keys.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.shards.columns import GENERATION
from data.shards.manifest import GENERATION_COLUMNS, ManifestError, read_manifest


def with_generations(uri: str, table: pa.Table) -> pa.Table:
    """Return a manifest's table with GENERATION_COLUMNS, if more than one preparation added rows.

    Rows of the manifest that lies at `uri` keep their generation, others have the next one. Those
    that are left are numbered from 0, so that it does not matter what was removed.

    Args:
        uri: folder of the manifest; there may be none.
        table: rows of COLUMNS.

    Raises:
        OSError: the manifest cannot be read.
    """
    try:
        before = read_manifest(uri).columns
    except ManifestError:  # there is none, or it tells nothing: all rows are as of one preparation
        return table
    known = np.zeros(len(before), np.int32)
    if before.has_generations:
        known = before.whole(GENERATION).to_numpy()
    known = np.append(known, known.max(initial=-1) + 1)  # the last one is that of new rows
    row = pc.index_in(table.column("key"), value_set=before.whole("key"))
    generations, dense = np.unique(known[row.fill_null(-1).to_numpy()], return_inverse=True)
    if len(generations) == 1:
        return table
    return table.append_column(GENERATION_COLUMNS.field(0), pa.array(dense, pa.int32()))
