"""What stands around convolutions: their weights and their types, what is added, and gates."""
