"""The generator of Bert-VITS2, one module per part."""
