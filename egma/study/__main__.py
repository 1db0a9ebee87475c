"""Studies of many runs on a converted corpus; the same command goes on after an interruption.

    python -m egma.study --data DIR --output DIR [--kind ablation noise shortcut] [--seeds 0 1 2]

`ablation` (the default) trains 27 models: five rows of the objective and four smaller amounts of gaze, each with three
seeds.
`noise` moves, mixes up or replaces the gaze of training; `shortcut` draws a marker beside one finding. Each writes
NAME.md, NAME.tex, NAME.json and its plots.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from datasets import disable_progress_bars

from dataset_scripts.command_line import Parser, program
from dataset_scripts.schema import SPLITS, UserError, load_readings
from egma.study.kinds import ablation, noise, shortcut
from egma.study.runs import PRESETS, Study
from egma.tools.processes import preset_path

KINDS = ("ablation", "noise", "shortcut")


@program
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__, "python -m egma.study")
    parser.add_argument("--data", type=Path, required=True, help="corpus written by python -m dataset_scripts.build")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=["ablation"])
    parser.add_argument(
        "--preset", nargs="+", default=list(PRESETS), help="of train_egma.py, the later over the earlier"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max_steps", type=int, help="training steps of a run; default: the preset's")
    parser.add_argument("--finding", help="of the shortcut; default: the one that most training readings mark")
    options = parser.parse_args(argv)
    disable_progress_bars()
    if len(set(options.seeds)) != len(options.seeds):
        raise UserError(f"seeds: expected each once, got {' '.join(map(str, options.seeds))}")
    data = options.data.resolve()
    for split in SPLITS:
        load_readings(data, split)
    study = Study(
        options.output, [str(preset_path(one).resolve()) for one in options.preset], options.seeds, options.max_steps
    )
    for kind in options.kind:
        if kind == "shortcut":
            print(shortcut(study, data, options.finding))
        else:
            print({"ablation": ablation, "noise": noise}[kind](study, data))


if __name__ == "__main__":
    sys.exit(main())
