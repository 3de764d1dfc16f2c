"""Tests of tuning/."""
