"""Small programs that use the trainer from Python: read them, run them, start from them."""
