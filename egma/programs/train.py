"""Train EGMA: `accelerate launch train_egma.py --config configs/phantom.yaml --data DIR --output_dir DIR`.

Reads corpora of the one schema (`python -m dataset_scripts.build`), writes model and processor to the output folder
(the best by validation loss), a line of `metrics.jsonl` a step, trackers' logs, heat maps, `training_state.json` and
checkpoints. Ctrl-C and SIGTERM save and leave. With `--resume auto` the same command starts a run, goes on with it,
bit for bit on a CPU, and says when it is finished.
"""

import sys
from collections.abc import Sequence

from dataset_scripts.command_line import program
from dataset_scripts.schema import UserError
from egma.hub.push import push_model, require_pushable
from egma.tools.processes import write_json
from egma.training.arguments import TrainingSettings, parse_settings
from egma.training.checkpoint import FINISHED, check_same, checkpoints, find_checkpoint, read_finished
from egma.training.dry_run import dry_run
from egma.training.holding import held, leave_with_launcher
from egma.training.interruption import Interrupted
from egma.training.provenance import training_state
from egma.training.run import TrainingRun
from egma.training.together import on_first
from egma.training.watching import METRICS_FILE


def train(settings: TrainingSettings) -> None:
    """Run `settings` from the start, or from where the output folder stands."""
    if settings.push_to_hub is not None:
        require_pushable(settings.push_to_hub)
    run = TrainingRun(settings)
    if settings.dry_run:
        dry_run(run)
        return
    with held(run.accelerator, settings.output):
        if not _begin(run):
            return
        _describe(run)
        run.accelerator.init_trackers("egma" if settings.report_to != "tensorboard" else "tensorboard")
        run.run()
        if settings.push_to_hub is not None and run.accelerator.is_main_process:
            run.watch.say(push_model(settings.output, settings.push_to_hub))


def _begin(run: TrainingRun) -> bool:
    """Stand where the folder stands; whether there is anything left to do."""
    settings, output = run.settings, run.settings.output
    used = on_first(run.accelerator, lambda: bool(checkpoints(output)) or (output / METRICS_FILE).exists())
    if settings.resume is None and used:
        raise UserError(f"{output} already holds a run; go on with --resume auto, or name another --output_dir")
    if settings.resume is None:
        return True
    finished = on_first(run.accelerator, lambda: read_finished(output))
    if finished and settings.resume == "auto" and not (settings.extend and run.total_steps > finished["total_steps"]):
        check_same(output / FINISHED, finished["settings"], run.lasting)
        run.watch.say(
            f"{output}: this run is finished, at step {finished['step']}; a larger --max_steps with --extend goes on, "
            "push_egma.py puts it on the Hub"
        )
        run.part()
        return False
    found = on_first(run.accelerator, lambda: find_checkpoint(output, str(settings.resume)))
    if found is not None:
        run.resume(found)
    return True


def _describe(run: TrainingRun) -> None:
    output, origin = run.settings.output, run.origin

    def write() -> None:
        (output / FINISHED).unlink(missing_ok=True)
        model, data = run.training.model, run.data.describe()
        state = training_state(run.settings, run.accelerator, model, data, run.total_steps) | {"origin": origin}
        write_json(output / "training_state.json", state)

    on_first(run.accelerator, write)


@program
def main(argv: Sequence[str] | None = None) -> int:
    leave_with_launcher()
    try:
        train(parse_settings(list(sys.argv[1:] if argv is None else argv)))
    except Interrupted as stop:
        print(f"{stop}; go on with --resume auto", file=sys.stderr)
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
