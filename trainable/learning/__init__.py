"""One global step: losses, gradients, optimizers, and the state that they change."""
