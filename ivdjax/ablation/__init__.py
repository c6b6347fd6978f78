"""From names to experiments: run them all, and say in a table, a figure and a test what differs."""
