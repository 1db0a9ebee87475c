"""Train EGMA: `accelerate launch train_egma.py --config configs/phantom.yaml --data DIR --output_dir DIR`."""

import sys

from egma.programs.train import main

if __name__ == "__main__":
    sys.exit(main())
