"""`python -m ivdjax`, the same as `ivdjax`."""

from ivdjax.cli import main

main()
