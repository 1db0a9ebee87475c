"""Command line of the phantom corpus."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.command_line import Parser, program
from dataset_scripts.phantom.corpus import LAYOUTS, write_phantom
from dataset_scripts.phantom.world import FRAMINGS, GAZE_SHARES


def _parser() -> Parser:
    parser = Parser("Write the phantom corpus.", "python -m dataset_scripts.phantom")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must not exist, or be empty")
    parser.add_argument("--readings", type=int, default=2000, help="number of readings (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument("--num-proc", type=int, default=2, help="number of processes (default: %(default)s)")
    parser.add_argument("--raw-samples", action="store_true", help="also write raw gaze samples, some 4 MB a reading")
    parser.add_argument(
        "--gaze", default="real", help=f"{', '.join(GAZE_SHARES)}, or the share of looks that belong to what is said"
    )
    parser.add_argument("--places", default="real", help=f"of findings: {', '.join(FRAMINGS)} (default: %(default)s)")
    parser.add_argument("--wording", default="real", help="real, or fixed: five ways to say a finding")
    parser.add_argument("--style", default="a", help="a, or b: other bodies, exposures and turns of phrase")
    parser.add_argument("--layout", default="mimic_eye", help=f"one of {', '.join(LAYOUTS)} (default: %(default)s)")
    return parser


@program
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 2 for a mistake of the user."""
    arguments = _parser().parse_args(argv)
    output = write_phantom(
        arguments.output,
        arguments.readings,
        arguments.seed,
        arguments.num_proc,
        arguments.raw_samples,
        arguments.layout,
        **{name: getattr(arguments, name) for name in ("gaze", "places", "wording", "style")},
    )
    print(f"{output}: {arguments.readings} generated readings")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the hidden folder goes
    sys.exit(main())
