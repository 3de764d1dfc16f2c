"""Operators that are one kernel each on a GPU, in Triton, and torch code elsewhere."""
