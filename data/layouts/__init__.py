"""Transcripts as they come: the layouts of public corpora and of other trainers' lists."""
