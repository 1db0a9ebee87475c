"""Push a trained model to the Hub, private unless told otherwise.

    python push_egma.py DIR ID [--results DIR] [--public] [--overwrite] [--dry-run OUT]

Weights, processor, code and a complete card go up; checkpoints, logs and settings do not. With --results (what
`evaluate_egma.py --output` wrote for this very model) its figures stand in the card and in its `model-index`.
With --space nothing goes up: the page of the model ID is written as a Space, to be pushed with `hf upload`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.schema import UserError
from egma.hub.push import push_model, stage_model
from egma.hub.space import write_space


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path, help="output folder of train_egma.py")
    parser.add_argument("repo_id", metavar="ID", help="user/name")
    parser.add_argument("--results", type=Path, help="output folder of evaluate_egma.py")
    parser.add_argument("--public", action="store_true")
    parser.add_argument("--overwrite", action="store_true", help="put it over what the repository holds")
    parser.add_argument(
        "--dry-run", type=Path, metavar="OUT", help="write what would go up to the new folder OUT instead"
    )
    parser.add_argument("--space", type=Path, metavar="OUT", help="write a Space of ID's page to the new folder OUT")
    options = parser.parse_args(argv)
    try:
        if options.space is not None:
            print(write_space(options.repo_id, options.space))
            return 0
        if options.dry_run is not None:
            print(stage_model(options.folder, options.repo_id, options.results, options.dry_run))
            return 0
        kept = {"public": options.public, "overwrite": options.overwrite}
        print(push_model(options.folder, options.repo_id, options.results, **kept))
    except FileExistsError:
        print(f"error: {options.space or options.dry_run}: exists already; expected a new folder", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
