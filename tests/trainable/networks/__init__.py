"""Behaviour tests of the networks."""
