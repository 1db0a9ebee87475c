"""What is installed with the package is under licences that are known, none of them a GPL."""

from email.message import Message
from importlib.metadata import distribution
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.licences import GPL, licence, licences


def test_nothing_under_a_gpl_comes_with_the_package() -> None:
    found = licences()
    assert {"torch", "transformers", "datasets", "gradio", "pydicom", "onnxruntime", "numpy"} <= {
        package.split()[0] for package in found
    }
    assert [package for package, named in found.items() if named is None or GPL.search(named)] == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ([("License-Expression", "MIT"), ("License", "x")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: BSD License")], "BSD License"),
        ([("License", "GNU GPLv3\nlong text")], "GNU GPLv3"),
        ([("License", "")], None),
    ],
)
def test_a_licence_is_what_the_metadata_say(fields: list[tuple[str, str]], named: str | None) -> None:
    about = Message()
    for name, value in [("Name", "a-package"), *fields]:
        about[name] = value
    assert licence(cast(Any, SimpleNamespace(metadata=about, version="1"))) == named


@pytest.mark.parametrize("name", ["GPL-3.0-only", "AGPL-3.0", "LGPLv2+", "GNU General Public License v3 (GPLv3)"])
def test_gpls_are_seen(name: str) -> None:
    assert GPL.search(name)
    assert not GPL.search(str(licence(distribution("numpy"))))
