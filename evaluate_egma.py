"""Evaluate a model on a converted corpus and print the headline table."""

import sys

from egma.programs.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
