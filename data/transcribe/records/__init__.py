"""What job.transcribe writes down: which recordings there are, and what became of each so far."""
