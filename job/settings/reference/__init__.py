"""The reference trainer's config.json and the project around it, read and written."""
