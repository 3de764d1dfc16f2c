"""The loop of a Ray Train worker, and what watches over it."""
