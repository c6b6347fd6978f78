"""The training step, what feeds it and what keeps it safe."""
