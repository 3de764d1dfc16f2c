"""What workers do together: every collective call of the project."""
