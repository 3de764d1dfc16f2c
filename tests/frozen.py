"""Keeps what was imported before this module from collections of garbage, in forks above all.

There they would take longer than most tests, and copy the memory that forks share.
"""

import gc

gc.freeze()
