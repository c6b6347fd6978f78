"""Scores, measures and the pages that show them."""
