"""A page that shows where every sentence of a report looks: `make app`, or `python app.py --model DIR_or_ID`."""

import sys

from egma.programs.app import main

if __name__ == "__main__":
    sys.exit(main())
