"""Searches over the loss weights."""
