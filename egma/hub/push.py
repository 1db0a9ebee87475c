"""A model's folder to the Hub: weights, processor, code, card and figures, and nothing else that lies there."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from dataset_scripts.identity import model_identity
from dataset_scripts.schema import UserError
from egma.evaluation.reporting.model_index import benchmark_results
from egma.hub.card import model_card
from egma.inference.models import load_whole_model

# these show no image and no report
FIGURES_WITHOUT_PATIENTS = ("roc.png", "confusion.png", "tsne.png")
FIRST_FIGURE = "heat_maps.png"


def require_pushable(repo_id: str) -> None:
    """Raise UserError when `push_model` could not be called later."""
    _require_id(repo_id)
    if get_token() is None:
        raise UserError("no token for the Hub; log in with `hf auth login`")


def _require_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id}: {error}") from None


def push_model(
    folder: Path, repo_id: str, results: Path | None = None, *, public: bool = False, overwrite: bool = False
) -> str:
    """Upload a trained model; returns its address.

    Args:
        results: folder that `evaluate_egma.py` wrote.
        public: private otherwise.
        overwrite: put it over what the repository holds.

    Raises:
        UserError: no model in the folder, weights that are not finite, results of another model, no token, a
            repository that holds something, or one that is public where a private one is asked for.
    """
    require_pushable(repo_id)
    with tempfile.TemporaryDirectory() as staging:
        staged = stage_model(folder, repo_id, results, Path(staging) / "model")
        return _upload(staged, repo_id, public, overwrite)


def stage_model(folder: Path, repo_id: str, results: Path | None, staged: Path) -> Path:
    """Everything that would go up, in a folder of its own.

    Model and processor are loaded and saved, so that what goes up is known to load and brings today's code. Whatever
    else lies in the folder stays: checkpoints and logs hold paths and names of readings.
    """
    _require_id(repo_id)
    model, processor = load_whole_model(folder, dtype="auto")
    broken = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise UserError(f"{folder}: {len(broken)} tensors hold NaN or an infinite number, such as {broken[0]}")
    staged.mkdir(parents=True)
    model.save_pretrained(staged)
    processor.save_pretrained(staged)
    found = None if results is None else _results(results)
    pictures = [] if results is None or found is None else _copy_figures(results, staged, bool(found["generated"]))
    model_card(folder, repo_id, found, pictures).save(staged / "README.md")
    if found is not None:
        # saved anew, the same model is other files: the figures that go up are of those
        found["model"]["identity"] = model_identity(staged)
        text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
        (staged / "results.json").write_text(text + "\n", encoding="utf-8")
        if entries := benchmark_results(found):
            (staged / ".eval_results").mkdir()
            text = yaml.safe_dump(entries, sort_keys=False)
            (staged / ".eval_results" / "egma.yaml").write_text(text, encoding="utf-8")
    return staged


def _results(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "results.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no results.json of evaluate_egma.py ({error})") from None


def _copy_figures(results: Path, staged: Path, generated: bool) -> list[str]:
    names = sorted((path.name for path in results.glob("figures/*.png")), key=lambda name: (name != FIRST_FIGURE, name))
    names = names if generated else [name for name in names if name in FIGURES_WITHOUT_PATIENTS]
    for name in names:
        (staged / "figures").mkdir(exist_ok=True)
        shutil.copy(results / "figures" / name, staged / "figures" / name)
    return [f"figures/{name}" for name in names]


def _upload(staged: Path, repo_id: str, public: bool, overwrite: bool) -> str:
    api = HfApi()
    try:
        address = api.create_repo(repo_id, private=not public, exist_ok=True)
        info = api.model_info(repo_id)
        held = [file.rfilename for file in info.siblings or [] if file.rfilename != ".gitattributes"]
        if held and not overwrite:
            raise UserError(f"{repo_id}: already holds {len(held)} files; another name, or --overwrite")
        if not public and not info.private:
            raise UserError(f"{repo_id}: exists and is public; expected a private repository, or say --public")
        api.upload_folder(repo_id=repo_id, folder_path=staged, commit_message="EGMA model")
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{repo_id}: {' '.join(str(error).split())}") from None
    return str(address)
