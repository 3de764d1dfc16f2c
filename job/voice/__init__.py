"""A trained voice in use: synthesis, scores, and files for other tools."""
