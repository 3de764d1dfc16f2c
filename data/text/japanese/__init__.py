"""Japanese: normalising, Open JTalk, pitch accents as tones."""
