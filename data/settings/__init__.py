"""How settings are declared and named, and those of the plan, of quality and of job.transcribe."""
