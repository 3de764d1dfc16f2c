"""Weights of others: published files, the hub, and where a run starts from."""
