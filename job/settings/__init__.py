"""The settings of a command: configuration, command line, paths, checks."""
