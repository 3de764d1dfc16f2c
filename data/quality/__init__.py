"""Quality of recordings: what is measured of each, and which lines go beyond `data.quality`."""
