"""What a Ray Train worker does: it sets up its parts, trains, saves, and leaves when it must."""
