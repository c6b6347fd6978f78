"""ivdjax: find, measure and score intervertebral discs in Dixon MRI."""

__version__ = "0.1.0"
