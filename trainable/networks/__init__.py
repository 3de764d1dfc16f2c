"""The neural networks of Bert-VITS2 2.3, one file per network part."""
