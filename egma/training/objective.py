"""What a run learns from, and what it says of that at its start."""

from typing import Any

from dataset_scripts.schema import UserError
from egma.training.arguments import OBJECTIVE_FIELDS, OBJECTIVE_WEIGHTS, TrainingSettings
from modeling_egma import EgmaConfig


def check_objective(config: Any, has_gaze: bool) -> None:
    """Something must be left to learn from.

    Args:
        has_gaze: whether any training reading has it.

    Raises:
        UserError: all weights are 0, or gaze is all that is weighted and no reading has any.
    """
    weights = {name: getattr(config, name) for name in OBJECTIVE_WEIGHTS}
    if not any(weights.values()):
        raise UserError("contrastive_weight, gaze_weight and mapping_weight are all 0: there is nothing to learn")
    if not weights["contrastive_weight"] and not weights["mapping_weight"] and not has_gaze:
        raise UserError(
            f"only gaze_weight ({weights['gaze_weight']:g}) is above 0, and no training reading has gaze "
            "(gaze_ratio, or a corpus without recordings)"
        )


def objective_notes(settings: TrainingSettings, config: Any, has_gaze: bool) -> list[str]:
    """Sentences on an objective that is not what data or start suggest."""
    notes = []
    if settings.model is not None:
        stored = EgmaConfig.from_pretrained(settings.model)
        given = settings.egma_config.keys() | {
            name for name in OBJECTIVE_WEIGHTS if getattr(settings, name) is not None
        }
        others = [name for name in OBJECTIVE_FIELDS if getattr(stored, name) != getattr(config, name)]
        changes = [
            f"{name} {_plain(getattr(config, name))} (there {_plain(getattr(stored, name))})"
            for name in others
            if name not in given
        ]
        if changes:
            notes.append(f"the objective is this run's, not that of {settings.model}: {', '.join(changes)}")
    aligned = "cabs" if config.interaction == "cabs" else "late_interaction"
    if config.zero_shot_score not in ("pooled", aligned):
        notes.append(
            f"zero_shot_score is {config.zero_shot_score}, but interaction {config.interaction} aligns what "
            f"{aligned} scores: set zero_shot_score in egma_config"
        )
    if has_gaze and not config.gaze_weight:
        rest = "; only the mapping term uses their gaze" if config.mapping_weight else ""
        notes.append(f"gaze_weight is 0 though training readings have gaze: it teaches no alignment{rest}")
    if config.gaze_weight and not has_gaze:
        notes.append("no training reading has gaze: the gaze term is 0")
    return notes


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
