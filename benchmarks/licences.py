"""Licences of everything that the package installs, and of what that installs: `python -m benchmarks.licences`.

Ends with 1 where one is not known, or is a GPL.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

EXTRAS = ("train", "eval", "app", "dicom", "export")
GPL = re.compile(r"\b[AL]?GPL|General Public License", re.I)


def licence(package: Distribution) -> str | None:
    """What a package says of itself: its expression, else its classifiers, else the first line of the old field."""
    about = package.metadata
    kinds = [kind.split(" :: ")[-1] for kind in about.get_all("Classifier") or () if kind.startswith("License ::")]
    old = (about.get("License") or "").strip().splitlines()
    return about.get("License-Expression") or " or ".join(kinds) or (old[0] if old else None)


def needed(name: str, extras: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What an installed package asks for on this machine, each with its extras."""
    from packaging.requirements import Requirement

    for line in distribution(name).requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield wanted.name, tuple(sorted(wanted.extras))


def licences(name: str = "egma", extras: tuple[str, ...] = EXTRAS) -> dict[str, str | None]:
    """Licence by package and version, of everything that is installed with `name`."""
    open_ones, seen, found = [(name, extras)], set(), {}
    while open_ones:
        one = open_ones.pop()
        key = re.sub(r"[-_.]+", "-", one[0]).lower(), one[1]
        if key in seen:
            continue
        seen.add(key)
        try:
            package = distribution(one[0])
        except PackageNotFoundError:
            continue  # of another platform, or another build that needs it
        found[f"{key[0]} {package.version}"] = licence(package)
        open_ones += needed(*one)
    return dict(sorted(found.items()))


def main() -> int:
    found = licences()
    for package, named in found.items():
        print(f"{package:34} {named or 'UNKNOWN'}")
    wrong = [package for package, named in found.items() if named is None or GPL.search(named)]
    print(f"{len(found)} packages; " + (f"look at {', '.join(wrong)}" if wrong else "none under a GPL, none unknown"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
