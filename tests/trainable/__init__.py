"""Tests of trainable."""
