"""A source of Ray Data's whose rows one task makes, on the node that asks for them."""

from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.data
from ray.data.block import Block, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

NODE_ID = "ray.io/node-id"  # Ray's label of each node


class Source(Datasource):
    """Blocks of one row, each made as soon as it is asked for.

    Args:
        read: yields them.
    """

    def __init__(self, read: Callable[[], Iterator[Block]]) -> None:
        self.read = read

    def estimate_inmemory_data_size(self) -> int | None:
        """Return nothing: it is not known."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """Return the one task that makes the rows."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(self.read, unknown)]


def read_here(read: Callable[[], Iterator[Block]]) -> ray.data.Dataset:
    """Return the dataset of the blocks that a function yields, on this node and without a CPU.

    Args:
        read: yields blocks of one row.
    """
    dataset = ray.data.read_datasource(
        Source(read),
        override_num_blocks=1,
        num_cpus=0,
        label_selector={NODE_ID: ray.get_runtime_context().get_node_id()},
    )
    # a block per row, each as soon as it is made
    dataset.context.target_max_block_size = 1
    return dataset
