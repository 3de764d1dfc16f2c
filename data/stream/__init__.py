"""The plan executed: rows read, collated into micro-batches, and fed to the workers by Ray Data."""
