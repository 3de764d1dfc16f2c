"""What job.transcribe writes down: which recordings there are, how far each is, what became of it."""
