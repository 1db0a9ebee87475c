"""EGMA for Hugging Face: `from egma import EgmaModel, EgmaProcessor`; the names are those of `modeling_egma`.

They are loaded when they are asked for, so that `import egma` itself costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling_egma import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name != "__all__" and not name.startswith("Egma"):
        raise AttributeError(f"module 'egma' has no attribute '{name}'")
    import modeling_egma

    return getattr(modeling_egma, name)


def __dir__() -> list[str]:
    return [*__getattr__("__all__")]
