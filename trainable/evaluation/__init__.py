"""Validation: a generator's syntheses measured against recordings."""
