"""Order as pure functions of lengths, seed and epoch; imports numpy and data.settings alone."""
