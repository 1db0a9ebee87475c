"""Studies of many runs: ablation and gaze amount, shortcut, noise. `python -m egma.study --help`."""
