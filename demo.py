"""The whole path on generated data: `make demo`."""

import sys

from egma.programs.demo import main

if __name__ == "__main__":
    sys.exit(main())
