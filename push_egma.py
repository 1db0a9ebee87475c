"""Push a trained model to the Hub, private unless told otherwise."""

import sys

from egma.programs.push import main

if __name__ == "__main__":
    sys.exit(main())
