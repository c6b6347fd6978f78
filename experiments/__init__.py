"""One module an experiment. Run one with `python -m experiments.NAME`."""
