"""Parity with numbers measured from the reference trainer."""
