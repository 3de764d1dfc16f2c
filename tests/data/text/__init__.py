"""Tests of data.text."""
