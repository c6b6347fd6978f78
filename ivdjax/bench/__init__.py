"""Measuring: how fast a training step, the pipeline, a start and a prediction are on this machine."""
