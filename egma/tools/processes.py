"""Programs run side by side, each once: what was made before, of the same, is reused; a cut-off training goes on."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from dataset_scripts.identity import corpus_identity, model_identity, program_identity
from dataset_scripts.schema import UserError

ROOT = Path(__file__).resolve().parents[2]  # where the packages lie: the clone, or the installed ones
CONFIGS = ROOT / "egma" / "configs"
RECORD = "stages.json"
POLL_SECONDS = 0.1
# the bars of the libraries, one a file that is opened or written
QUIET = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
_SHARED = [ROOT / name for name in ("dataset_scripts", "modeling_egma", "egma/inference", "egma/tools")]
TRAINING_SOURCES = (*_SHARED, ROOT / "egma/training", ROOT / "egma/programs/train.py")
EVALUATION_SOURCES = (*_SHARED, ROOT / "egma/evaluation", ROOT / "egma/figures", ROOT / "egma/programs/evaluate.py")


class Stage(NamedTuple):
    """One program: what it is called, its command line after `python`, the folder that it makes, and of what.

    `made_of` holds the identities of what it reads, as they are now; `going_on` the words by which the program goes on
    with what an interruption left, None where it starts anew.
    """

    title: str
    command: tuple[object, ...]
    result: Path
    made_of: tuple[str | None, ...]
    going_on: tuple[str, ...] | None = None

    @property
    def words(self) -> list[str]:
        return [str(word) for word in self.command]

    @property
    def record(self) -> dict[str, Any]:
        return {"command": self.words, "made_of": list(self.made_of)}

    def is_begun(self, begun: Mapping[str, Any]) -> bool:
        """Whether `begun` is the record of this very program on these very inputs."""
        return self.record.items() <= begun.items()


class _Running(NamedTuple):
    process: subprocess.Popen[str]
    started: float


def preset_path(name: str) -> Path:
    """A preset by its path, else the package's: `configs/phantom.yaml` is found from anywhere."""
    shipped = CONFIGS.parent / name
    return shipped if shipped.is_file() and not Path(name).exists() else Path(name)


def training(
    data: Path, run: Path, presets: Sequence[str], gaze_ratio: float, seed: int, max_steps: int | None = None
) -> Stage:
    """A training as a user starts it, on one process."""
    launch: tuple[object, ...] = ("-m", "accelerate.commands.launch", "--quiet", "--num_processes", 1)
    launch += ("--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "egma.programs.train")
    launch += ("--config", ",".join(presets), "--data", data, "--output_dir", run)
    launch += ("--gaze_ratio", gaze_ratio, "--seed", seed, *(() if max_steps is None else ("--max_steps", max_steps)))
    made_of = program_identity(*TRAINING_SOURCES, *map(Path, presets)), corpus_identity(data)
    return Stage(f"train {run.name}", launch, run, made_of, ("--resume", "auto"))


def conversion(title: str, corpus: str, source: Path, made_of: str, data: Path, *options: object) -> Stage:
    """A conversion of a raw corpus, whose fingerprint is `made_of`; it goes on by itself."""
    command = ("-m", "dataset_scripts.build", corpus, "--source", source, "--output", data, *options)
    return Stage(title, command, data, (made_of,), ())


def evaluation(title: str, model: Path, data: Path, output: Path, *options: object) -> Stage:
    """An evaluation of a trained model."""
    command = ("-m", "egma.programs.evaluate", model, "--data", data, "--output", output, *options)
    made_of = program_identity(*EVALUATION_SOURCES), corpus_identity(data), model_identity(model)
    return Stage(title, command, output, made_of, ())


def run_stages(
    output: Path,
    stages: Sequence[Stage],
    workers: int | None = None,
    logs: Path | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Run programs side by side, each on its share of the cores; what the same command made of the same is reused.

    `stages.json` in `output` holds, by title, every command that was begun, what it reads, and the seconds of those
    that came to their end. A training that was interrupted goes on from its checkpoint.

    Args:
        workers: how many at a time; None: all.
        logs: folder for what the programs say; None: it is said here, in a terminal with their bars.
        meanwhile: called every POLL_SECONDS.

    Raises:
        UserError: a program failed; its own message stands above, or in its log.
    """
    output.mkdir(parents=True, exist_ok=True)
    record = _read_record(output)
    done = [stage for stage in stages if _is_done(stage, record.get(stage.title, {}))]
    for stage in done:
        print(f"{stage.title}: reused", flush=True)
    waiting = deque(stage for stage in stages if stage not in done)
    workers = max(1, min(workers or len(waiting), len(waiting)))
    environment = os.environ | QUIET | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}
    if logs is not None or not sys.stderr.isatty():
        environment["TQDM_DISABLE"] = "1"
    total, begun = len(waiting), time.monotonic()
    running: dict[Stage, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                stage = waiting.popleft()
                sink = None if logs is None else _log_of(stage, logs)
                process = _start(stage, record.get(stage.title), environment, total == 1, sink)
                running[stage] = _Running(process, time.monotonic())
                record[stage.title] = stage.record
                _write_record(output, record)
            time.sleep(POLL_SECONDS)
            meanwhile()
            for stage in [stage for stage in running if running[stage].process.poll() is not None]:
                ended = running.pop(stage)
                _check_ended(stage, ended.process, logs)
                record[stage.title]["seconds"] = round(time.monotonic() - ended.started, 1)
                _write_record(output, record)
                to_go = len(waiting) + len(running)
                left = (time.monotonic() - begun) / (total - to_go) * to_go
                rest = f"; {to_go} to go, about {left / 60:.0f} min" if to_go else ""
                print(f"{stage.title}: {record[stage.title]['seconds']:.0f} s{rest}", flush=True)
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.wait()


def _is_done(stage: Stage, begun: dict[str, Any]) -> bool:
    return stage.is_begun(begun) and "seconds" in begun and stage.result.exists()


def _start(
    stage: Stage, begun: dict[str, Any] | None, environment: dict[str, str], alone: bool, sink: IO[str] | None
) -> subprocess.Popen[str]:
    going_on = stage.going_on if begun is not None and stage.is_begun(begun) else None
    if going_on is None:
        shutil.rmtree(stage.result, ignore_errors=True)
    command = [sys.executable, *stage.words, *(going_on or ())]
    changed = begun is not None and not stage.is_begun(begun)
    print(f"{stage.title}{': what it is made of has changed' if changed else ''} ...", flush=True)
    if sink is not None:
        with sink:
            return subprocess.Popen(
                command, cwd=ROOT, env=environment, text=True, stdout=sink, stderr=subprocess.STDOUT
            )
    if alone:
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True)
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    threading.Thread(target=_relay, args=(process, stage.title), daemon=True).start()
    return process


def _relay(process: subprocess.Popen[str], title: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{title}: {line.rstrip()}", flush=True)


def _log_path(stage: Stage, logs: Path) -> Path:
    return logs / f"{re.sub(r'[^A-Za-z0-9.]+', '-', stage.title)}.log"


def _log_of(stage: Stage, logs: Path) -> IO[str]:
    logs.mkdir(parents=True, exist_ok=True)
    return _log_path(stage, logs).open("a", encoding="utf-8")


def _check_ended(stage: Stage, process: subprocess.Popen[str], logs: Path | None) -> None:
    if process.returncode == 0:
        return
    said = ""
    if logs is not None:
        path = _log_path(stage, logs)
        last = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        said = f": {' '.join(last)} ({path})"
    raise UserError(f"'{stage.title}' failed with exit code {process.returncode}{said}")


def _read_record(output: Path) -> dict[str, Any]:
    path = output / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write_record(output: Path, record: dict[str, Any]) -> None:
    write_json(output / RECORD, record)


def write_json(path: Path, values: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
