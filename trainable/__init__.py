"""Training: networks, losses, the step, checkpoints and the worker."""
