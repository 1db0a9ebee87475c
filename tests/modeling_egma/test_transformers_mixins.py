"""transformers' shared tests, from its source distribution, run on EGMA's classes."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import transformers

REPOSITORY = Path(__file__).parents[2]
CACHE = REPOSITORY / ".pytest_cache" / f"transformers-{transformers.__version__}"
# parts of transformers' test tree that the source distribution lacks and the shared tests import
STUBS = {
    "tests/__init__.py": "",
    "tests/exporters/__init__.py": "",
    "tests/exporters/test_export.py": "class ExportTesterMixin: pass\n",
    "tests/generation/__init__.py": "",
    "tests/generation/test_utils.py": "class GenerationTesterMixin: pass\n",
    "tests/utils/__init__.py": "",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url, *args, **kwargs):\n    return url\n",
}
LEAST_PASSED = {
    "EgmaModelTest": 70,
    "EgmaForImageClassificationTest": 70,
    "EgmaVisionModelTest": 50,
    "EgmaTextModelTest": 50,
    "EgmaImageProcessorTest": 18,
    "EgmaProcessorTest": 28,
}


def shared_tests() -> Path:
    """Folder of transformers' shared test files, downloaded once."""
    if not CACHE.exists():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        staging = CACHE.with_name(f"{CACHE.name}-{os.getpid()}")
        staging.mkdir(parents=True)
        package = f"transformers=={transformers.__version__}"
        result = subprocess.run(
            [*download, "--no-build-isolation", "--dest", staging, package], capture_output=True, text=True
        )
        if result.returncode:
            shutil.rmtree(staging)
            pytest.skip(f"the source distribution of {package} cannot be had: {result.stderr.strip()[-200:]}")
        with tarfile.open(next(staging.glob("*.tar.gz"))) as archive:
            archive.extractall(staging, filter="data")
        staging.rename(CACHE)
    return next(CACHE.glob("transformers-*/tests"))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Class -> test -> passed, or what stands in the way of it."""
    root = tmp_path_factory.mktemp("mixins")
    for name, text in STUBS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for source in shared_tests().glob("test_*_common.py"):
        shutil.copy(source, root / "tests")
    shutil.copy(Path(__file__).with_name("mixin_cases.py"), root / "tests" / "test_egma_mixins.py")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-n", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    report = root / "report.xml"
    subprocess.run(
        [*command, f"--junitxml={report}", "tests/test_egma_mixins.py"],
        cwd=root,
        env=environment,
        capture_output=True,
        timeout=600,
    )
    found: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        troubles = [f"{child.tag}: {child.get('message')}" for child in case]
        found.setdefault(case.get("classname", "").rpartition(".")[2], {})[case.get("name", "")] = "; ".join(troubles)
    return found


@pytest.mark.parametrize("name", LEAST_PASSED)
def test_shared_tests_pass(outcomes, name):
    passed = [test for test, trouble in outcomes[name].items() if not trouble]
    skipped = [test for test, trouble in outcomes[name].items() if trouble.startswith("skipped")]
    failed = {test: trouble for test, trouble in outcomes[name].items() if re.match("failure|error", trouble)}
    print(f"{name}: {len(passed)} passed, {len(skipped)} skipped")
    assert not failed
    assert len(passed) >= LEAST_PASSED[name]
