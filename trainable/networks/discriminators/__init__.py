"""The discriminators that the generator is trained against."""
