"""EGMA for Hugging Face: `from egma import EgmaModel, EgmaProcessor`; the names are those of `modeling_egma`.

They are loaded when they are asked for, so that `import egma` itself costs nothing. `SAMPLE_MODEL` and
`SAMPLE_READINGS` are folders of the package: a small model, trained on generated data, and a corpus of four readings.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling_egma import *  # noqa: F403

SAMPLE_MODEL, SAMPLE_READINGS = (
    str(Path(__file__).parent / "sample" / name) for name in ("sample_model", "sample_readings")
)


def __getattr__(name: str) -> Any:
    if name != "__all__" and not name.startswith("Egma"):
        raise AttributeError(f"module 'egma' has no attribute '{name}'")
    import modeling_egma

    if name == "__all__":
        return [*modeling_egma.__all__, "SAMPLE_MODEL", "SAMPLE_READINGS"]
    return getattr(modeling_egma, name)


def __dir__() -> list[str]:
    return [*__getattr__("__all__")]
