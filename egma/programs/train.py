"""Train EGMA: `accelerate launch train_egma.py --config configs/phantom.yaml --data DIR --output_dir DIR`.

Reads corpora of the one schema (`python -m dataset_scripts.build`), writes model and processor to the output folder
(the best by validation loss), a line of `metrics.jsonl` a step, trackers' logs, heat maps, `training_state.json` and
checkpoints. Ctrl-C and SIGTERM save and leave; the same command with `--resume auto` goes on, bit for bit on a CPU.
"""

import sys

from accelerate.utils import broadcast_object_list

from dataset_scripts.schema import UserError
from egma.hub.push import push_model, require_pushable
from egma.tools.processes import write_json
from egma.training.arguments import TrainingSettings, parse_settings
from egma.training.checkpoint import find_checkpoint
from egma.training.dry_run import dry_run
from egma.training.interruption import Interrupted
from egma.training.provenance import training_state
from egma.training.run import TrainingRun
from egma.training.watching import METRICS_FILE


def _prepare_output(run: TrainingRun) -> None:
    """A new run wants a folder without a run in it."""
    settings, accelerator, output = run.settings, run.accelerator, run.settings.output
    origin = run.origin
    used = [any(output.glob("checkpoint-*")) or (output / METRICS_FILE).exists()]
    broadcast_object_list(used)
    if used[0] and settings.resume is None:
        raise UserError(f"{output} already holds a run; go on with --resume auto, or name another --output_dir")
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        model, data = run.training.model, run.data.describe()
        state = training_state(settings, accelerator, model, data, run.total_steps) | {"origin": origin}
        write_json(output / "training_state.json", state)
    accelerator.wait_for_everyone()


def train(settings: TrainingSettings) -> None:
    """Run `settings` from the start, or from a checkpoint."""
    if settings.push_to_hub is not None:
        require_pushable(settings.push_to_hub)
    run = TrainingRun(settings)
    if settings.dry_run:
        dry_run(run)
        return
    found = None if settings.resume is None else find_checkpoint(settings.output, settings.resume)
    if found is not None:
        run.resume(found)
    _prepare_output(run)
    run.accelerator.init_trackers("egma" if settings.report_to != "tensorboard" else "tensorboard")
    run.run()
    if settings.push_to_hub is not None and run.accelerator.is_main_process:
        run.watch.say(push_model(settings.output, settings.push_to_hub))


def main(argv: list[str] | None = None) -> int:
    try:
        train(parse_settings(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"{stop}; go on with --resume auto", file=sys.stderr)
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
