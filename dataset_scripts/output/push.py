"""A converted corpus to the Hub: as a private data set, and never one that is not the user's to give."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from dataset_scripts.schema import UserError


def require_pushable(repo_id: str, corpus: str, may_be_shared: bool) -> None:
    """Raise UserError when `push` could not, or must not, be called after the conversion.

    `may_be_shared` is false for a corpus under a data use agreement, unless the user says that the rights are theirs.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"--push-to-hub: {error}") from None
    if not may_be_shared:
        raise UserError(
            f"--push-to-hub: the terms of {corpus} forbid to pass on its images or texts, and a private repository "
            "passes them on too; add --i-hold-the-rights if you have them"
        )
    if get_token() is None:
        raise UserError("--push-to-hub: no token for the Hub; log in with `hf auth login`")


def push(folder: Path, repo_id: str, must_be_private: bool) -> str:
    """Upload the folder as a data set, private if it is new, and return the address.

    Raises:
        UserError: the Hub refused, or the repository exists, is public and must be private.
    """
    api = HfApi()
    again = f"the corpus is in {folder}: upload it with `hf upload {repo_id} {folder} --repo-type dataset`"
    try:
        address = api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
        if must_be_private and not api.repo_info(repo_id, repo_type="dataset").private:
            raise UserError(f"{repo_id}: exists and is public; expected a private repository ({again})")
        api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="dataset", commit_message="Converted corpus")
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{repo_id}: {error} ({again})") from None
    return str(address)
