"""Commands: what users run."""
