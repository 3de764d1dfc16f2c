"""Text front ends: a transcript line to phones, tones and the tokens that BERT reads."""
