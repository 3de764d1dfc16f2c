"""How settings are declared and named, and those of job.transcribe and of quality."""
