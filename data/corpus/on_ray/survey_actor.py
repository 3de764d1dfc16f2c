"""The first pass in an actor that outlives lines which kill their process, and rejects them.

A recording or text may crash a decoder or an engine, take all memory or never end. The actor works
on batches until its process dies, or a line takes longer than data.line_timeout_s. Ray then starts
it again, and from then on it gives each line to another process. A line in which that one dies is
tried alone in a new one, and rejected if this dies too.
"""

from functools import partial

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data.config import DataConfig
from data.corpus.on_ray.apart import Apart
from data.corpus.on_ray.limits import end_process, limit_memory, time_limit
from data.corpus.recipe import Recipe
from data.corpus.survey import Surveyor, fatal
from data.corpus.tables.records import SURVEYED, circumstances
from data.rejected import RejectedError


class SurveyActor:
    """Surveys lines, as `Surveyor` does.

    Args: see `Surveyor`.
    """

    def __init__(self, cfg: DataConfig, recipe: Recipe) -> None:
        has_died = ray.get_runtime_context().was_current_actor_reconstructed
        process = LineByLine if has_died else SurveyProcess
        self.survey = process(cfg, recipe)

    def __call__(self, lines: pa.Table) -> pa.Table:
        """Return rows of SURVEYED from rows of LINE."""
        return self.survey(lines)


class SurveyProcess:
    """A surveyor in a process that a line may end.

    Args: see `Surveyor`.
    """

    def __init__(self, cfg: DataConfig, recipe: Recipe) -> None:
        self.surveyor = Surveyor(cfg, recipe, partial(time_limit, cfg.line_timeout_s))
        limit_memory()

    def load(self, line: pa.Table) -> None:
        """See data.corpus.on_ray.apart.LineProcess."""
        self.surveyor.load(line.column("language")[0].as_py())

    def __call__(self, lines: pa.Table) -> pa.Table:
        """Return rows of SURVEYED from rows of LINE."""
        try:
            return self.surveyor(lines)
        except MemoryError:
            # most libraries die of it: one way for all
            end_process()
            raise


class LineByLine:
    """Surveys lines one by one, in a process that is replaced when it dies.

    Args: see `Surveyor`.
    """

    def __init__(self, cfg: DataConfig, recipe: Recipe) -> None:
        self.circumstances = circumstances(cfg, recipe)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.process = Apart(
            SurveyProcess,
            cfg,
            recipe,
            limit_s=cfg.line_timeout_s,
            num_cpus=0,
            scheduling_strategy=here,
        )

    def __call__(self, lines: pa.Table) -> pa.Table:
        """Return rows of SURVEYED from rows of LINE."""
        return pa.concat_tables(self._survey(lines.slice(row, 1)) for row in range(lines.num_rows))

    def _survey(self, line: pa.Table) -> pa.Table:
        try:
            return self.process(line)
        except RejectedError as error:
            row = fatal(self.circumstances, line.to_pylist()[0], error)
            return pa.Table.from_pylist([row], schema=SURVEYED)
