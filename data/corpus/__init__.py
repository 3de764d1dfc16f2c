"""Preparation: from lines of a transcript to rows of shards, every line accounted for."""
