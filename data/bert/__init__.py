"""BERT: tokenizers, and one feature vector per token of a text."""
