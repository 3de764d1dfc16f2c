"""The order in which new rows are written is that of the plan, equals included."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from data.corpus.prepare import _in_strips
from data.corpus.tables.rows import Rows
from data.plan.blocks import strip_order


def test_new_rows_are_written_in_the_order_of_the_manifests_plan():
    rng = np.random.default_rng(0)
    count = 9000
    ids = pa.array([f"{name:x}.wäv" for name in rng.permutation(count)])
    lines = SimpleNamespace(columns=lambda line, names: pa.table({"id": ids.take(line)}))
    frames, phones = rng.integers(80, 120, (2, count)).astype(np.int32)  # many are equal
    held = np.where(rng.random(count) < 0.2, 3, -1)
    rows = Rows(lines, None, np.arange(count), held, frames * 512, frames, phones)
    written = ids.take(_in_strips(rows)).to_pylist()

    new = np.flatnonzero(held < 0)
    # as a manifest is sorted, of which the plan sees the lengths alone
    of_manifest = np.array(sorted(new, key=lambda row: (frames[row], ids[int(row)].as_py())))
    planned = of_manifest[strip_order(frames[of_manifest], 2 * phones[of_manifest] + 1)]
    assert written == ids.take(planned).to_pylist()
