"""Sound: recordings decoded to waveforms, and waveforms to spectrograms."""
