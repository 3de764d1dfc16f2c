"""Order as a pure function of the manifest, the seed and the epoch; numpy only."""
