"""The run's folder: checkpoints, records, logs; written beside the training, on any storage."""
