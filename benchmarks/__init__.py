"""Benchmarks: one command each, ratios measured side by side in one run."""
