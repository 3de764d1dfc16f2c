"""A trained voice in use: synthesis, and graphs for other runtimes."""
