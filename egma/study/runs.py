"""Which runs a study consists of, and running them: each trained and evaluated once, with what was cut off resumed."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from egma.evaluation.statistics.seeds import Spread
from egma.tools.processes import CONFIGS, Stage, evaluation, run_stages, training

PRESETS = (str(CONFIGS / "phantom.yaml"), str(CONFIGS / "study.yaml"))
BOOTSTRAP_DRAWS = 200


class Setting(NamedTuple):
    """A row of a study: its name, and what makes it differ from the whole method with all gaze."""

    name: str
    data: Path
    gaze_ratio: float = 1.0
    ablation: str = "unified"


class Study:
    """Runs under one folder; a run is a setting and a seed, its model in `runs/NAME`.

    Args:
        presets: YAML files of `train_egma.py`, the later over the earlier.
        max_steps: of a training; None: the presets'.
    """

    def __init__(self, output: Path, presets: Sequence[str], seeds: Sequence[int], max_steps: int | None) -> None:
        self.output, self.presets, self.seeds, self.max_steps = output.resolve(), presets, seeds, max_steps

    def model(self, setting: Setting, seed: int) -> Path:
        return self.output / "runs" / f"{setting.name}-seed{seed}"

    def evaluation(self, setting: Setting, seed: int, test: str) -> Path:
        return self.output / "evaluations" / f"{setting.name}-seed{seed}" / test

    def run(self, settings: Sequence[Setting], tests: Mapping[str, Path]) -> None:
        """Train every setting with every seed, then evaluate each model on each of the test corpora.

        Raises:
            UserError: a program failed.
        """
        pairs = [(setting, seed) for seed in self.seeds for setting in settings]
        self._run([self._training(*pair) for pair in pairs])
        self._run([self._evaluation(*pair, name, data) for pair in pairs for name, data in tests.items()])

    def _run(self, stages: Sequence[Stage]) -> None:
        run_stages(self.output, stages, workers=os.cpu_count() or 1, logs=self.output / "logs")

    def figures(self, setting: Setting, test: str, keys: Sequence[str]) -> dict[str, Spread]:
        """The figures of results.json over the seeds; those that the data did not give are left out."""
        files = [self.evaluation(setting, seed, test) / "results.json" for seed in self.seeds]
        results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        found = {key: [result.get(key) for result in results] for key in keys}
        intervals = {key: tuple(result["intervals"].get(key) for result in results) for key in keys}
        return {key: Spread(tuple(values), intervals[key]) for key, values in found.items() if None not in values}

    def baselines(self, setting: Setting, test: str) -> dict[str, dict[str, float | None]]:
        """Chance and constant predictor of the first seed's test set, and the best blind baseline of its own model."""
        file = self.evaluation(setting, self.seeds[0], test) / "results.json"
        results = json.loads(file.read_text(encoding="utf-8"))
        best = {key: max(found.values()) for key, found in results["blind"].items()}
        return {name: results[name] for name in ("chance", "constant_predictor")} | {"best_blind_baseline": best}

    def _training(self, setting: Setting, seed: int) -> Stage:
        presets = (*self.presets, str(CONFIGS / "ablations" / f"{setting.ablation}.yaml"))
        return training(setting.data, self.model(setting, seed), presets, setting.gaze_ratio, seed, self.max_steps)

    def _evaluation(self, setting: Setting, seed: int, test: str, data: Path) -> Stage:
        model, output = self.model(setting, seed), self.evaluation(setting, seed, test)
        return evaluation(f"evaluate {model.name} on {test}", model, data, output, "--bootstrap", BOOTSTRAP_DRAWS)
