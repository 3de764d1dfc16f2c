"""Preparation: from lines of a transcript to rows of shards, every line accounted for."""

import os

# read once, when pyarrow is imported: its other pools keep tens of megabytes of what was freed
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
