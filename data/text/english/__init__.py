"""English: normalising, a dictionary, and a network for words that it lacks."""
