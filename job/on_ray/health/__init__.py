"""Whether machines, settings and data are fit for a run: what job.doctor finds out."""
