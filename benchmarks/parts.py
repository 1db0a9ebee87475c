"""What the benchmarks' programs share: parts that are named on the command line."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_parts(about: str | None, parts: Mapping[str, Callable[[Path], None]]) -> None:
    """Run the named parts, all without a name, each with the folder for what is generated."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (default: all)")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "benchmarks", help="for what is generated")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - parts.keys()
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; expected {', '.join(parts)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts or parts:
        parts[name](arguments.folder.resolve())
