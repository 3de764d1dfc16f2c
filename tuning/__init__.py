"""Searches over the configuration: many trials, compared by a score."""
