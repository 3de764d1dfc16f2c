"""What a command is told: the configuration, its command line, its paths, and the reference's."""
