"""From NIfTI files, or from a digital phantom, to batches of 2.5D slice stacks."""
