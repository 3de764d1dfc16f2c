"""From recordings and a transcript to micro-batches: nothing here knows a network."""
