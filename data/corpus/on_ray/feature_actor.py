"""The second pass in two ways: block by block, or row by row once a process of it has died.

BERT, a decoder or an encoder may die of a row, take all memory or never end. What is left is then
computed by another process, which gets one row after the other: so the row is found, tried once
alone, and rejected if that process dies too. All others go on.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from data.config import DataConfig
from data.corpus.features import BertActor
from data.corpus.on_ray.apart import Apart
from data.corpus.on_ray.limits import BATCH_LIMIT, line_limits
from data.corpus.recipe import Recipe
from data.corpus.writer import WRITTEN, ProblemError, finished_row, write_finished, write_rows
from data.rejected import RejectedError


def bert_actor(cfg: DataConfig, device: str) -> BertActor:
    """Return a BertActor that ends its process if a batch takes too long, or too much memory."""
    return BertActor(cfg, device, partial(line_limits, BATCH_LIMIT * cfg.line_timeout_s, device))


def write_block(rows: pa.Table, cfg: DataConfig, recipe: Recipe) -> pa.Table:
    """Write a shard as `write_rows` does; end the process if a recording takes too long."""
    return write_rows(rows, cfg, recipe, partial(line_limits, cfg.line_timeout_s))


class FeatureProcess:
    """Computes rows in a process that they may end.

    Args: see `BertActor` and `write_rows`.
    """

    def __init__(self, cfg: DataConfig, recipe: Recipe, device: str) -> None:
        self.cfg = cfg
        self.recipe = recipe
        self.bert = BertActor(cfg, device, partial(line_limits, cfg.line_timeout_s, device))

    def load(self, line: pa.Table) -> None:
        """See data.corpus.on_ray.apart.LineProcess."""
        self.bert.load(line.column("language")[0].as_py())

    def __call__(self, line: pa.Table) -> dict[str, Any]:
        """Return a row as `finished_row` does, from one of BLOCK; or a `problem`."""
        limited = partial(line_limits, self.cfg.line_timeout_s)
        try:
            return finished_row(self.bert(line), self.cfg, self.recipe, limited)
        except (ProblemError, OSError) as error:
            return {"problem": str(error)}


class RowByRow:
    """Computes and writes shards, row by row in a process that is replaced when it dies.

    Args:
        cfg: the configuration.
        recipe: recipe that the rows' keys were made by.
        device: device to compute on.
        **resources: of that process, as Ray names them.
    """

    def __init__(self, cfg: DataConfig, recipe: Recipe, device: str, **resources: float) -> None:
        self.cfg = cfg
        limit = cfg.line_timeout_s
        self.process = Apart(FeatureProcess, cfg, recipe, device, limit_s=limit, **resources)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return rows of WRITTEN from rows of BLOCK."""
        ended: list[dict[str, str]] = []
        written = write_finished(self.cfg.shards, self._finished(rows, ended))
        return pa.concat_tables([written, pa.Table.from_pylist(ended, schema=WRITTEN)])

    def _finished(self, rows: pa.Table, ended: list[dict[str, str]]) -> Iterator[Mapping[str, Any]]:
        """Yield finished rows; append those that end their process to `ended`."""
        for number in range(rows.num_rows):
            row = rows.slice(number, 1)
            try:
                found = self.process(row)
            except RejectedError as error:
                key = row.column("key")[0].as_py()
                ended.append({"key": key, "reason": error.reason, "detail": error.detail})
                continue
            if "problem" in found:
                raise ProblemError(found["problem"])
            yield found
