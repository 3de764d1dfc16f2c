"""How the two passes run on Ray Data: batches of a file, and actors that outlive a bad line."""
