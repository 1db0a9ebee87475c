"""Uploading a conversion: private, refused for a corpus under a use agreement, and checked before any work."""

import json

import pytest

from dataset_scripts import build
from dataset_scripts.output import push
from tests.dataset_scripts.raw_trees import image_text_folder, mimic_eye_tree


class FakeApi:
    """Remembers what was asked of it; a repository is as private as it was made."""

    calls: list[tuple]
    is_public = False
    refuses = False

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        self.calls.append(("create", repo_id, repo_type, private, exist_ok))
        return f"https://hub/datasets/{repo_id}"

    def repo_info(self, repo_id, *, repo_type):
        return type("Info", (), {"private": not self.is_public})()

    def upload_folder(self, *, repo_id, folder_path, repo_type, commit_message):
        if self.refuses:
            raise OSError("no network")
        self.calls.append(("upload", repo_id, repo_type, sorted(path.name for path in folder_path.iterdir())))


@pytest.fixture
def api(monkeypatch):
    FakeApi.calls = []
    monkeypatch.setattr(push, "HfApi", FakeApi)
    monkeypatch.setattr(push, "get_token", lambda: "hf_x")
    return FakeApi


@pytest.fixture
def tree(tmp_path):
    return mimic_eye_tree(tmp_path / "raw")


def run(tree, output, *more):
    return build.main(
        ["mimic_eye", "--source", str(tree), "--output", str(output), "--image-size", "32", "--max-loss", "1", *more]
    )


def test_corpus_under_an_agreement_is_refused_before_the_conversion(tree, tmp_path, api, capsys):
    assert run(tree, tmp_path / "out", "--push-to-hub", "lab/gaze") == 2
    assert "terms of mimic_eye forbid" in capsys.readouterr().err
    assert api.calls == [] and [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_generated_corpus_is_pushed_private(tree, tmp_path, api, capsys):
    (tree / "phantom.json").write_text(json.dumps({"generated": True}))
    assert run(tree, tmp_path / "out", "--push-to-hub", "lab/gaze") == 0
    assert api.calls == [
        ("create", "lab/gaze", "dataset", True, True),
        ("upload", "lab/gaze", "dataset", ["README.md", "conversion_report.json", "croissant.json", "data"]),
    ]
    assert "https://hub/datasets/lab/gaze" in capsys.readouterr().out


def test_rights_that_the_user_states_are_believed_but_not_for_a_public_repository(
    tree, tmp_path, api, capsys, monkeypatch
):
    rights = ("--push-to-hub", "lab/gaze", "--i-hold-the-rights")
    assert run(tree, tmp_path / "one", *rights) == 0
    assert [call[0] for call in api.calls] == ["create", "upload"]
    monkeypatch.setattr(FakeApi, "is_public", True)
    assert run(tree, tmp_path / "two", *rights) == 2
    assert "exists and is public" in capsys.readouterr().err
    assert [call[0] for call in api.calls] == ["create", "upload", "create"]


def test_failed_upload_keeps_the_corpus_and_says_how_to_go_on(tree, tmp_path, api, capsys, monkeypatch):
    monkeypatch.setattr(FakeApi, "refuses", True)
    assert run(tree, tmp_path / "out", "--push-to-hub", "lab/gaze", "--i-hold-the-rights") == 2
    assert f"hf upload lab/gaze {tmp_path / 'out'} --repo-type dataset" in capsys.readouterr().err
    assert (tmp_path / "out" / "README.md").is_file()


@pytest.mark.parametrize(
    ("name", "token", "message"), [("no good/id", "hf_x", "--push-to-hub"), ("a/b", None, "no token")]
)
def test_what_cannot_succeed_is_refused_at_once(tmp_path, api, capsys, monkeypatch, name, token, message):
    monkeypatch.setattr(push, "get_token", lambda: token)
    source = image_text_folder(tmp_path / "raw", ["file_name,text", "a.png,Clear."])
    argv = ["image_text", "--source", str(source), "--output", str(tmp_path / "out"), "--push-to-hub", name]
    assert build.main([*argv, "--i-hold-the-rights"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
