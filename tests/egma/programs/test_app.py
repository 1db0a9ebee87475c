"""The program: what it says when it cannot start, and of what it shows."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from egma.page.corpus import Corpus
from egma.page.guard import Door
from egma.page.page import _banner
from egma.programs import app
from egma.tools.processes import ROOT
from modeling_egma import EgmaModel, EgmaProcessor
from tests.egma.page.serving import page_model


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-such/model", "no such folder, and no such model on the Hub"),
        ("no/such/model", "no such folder"),
        ("/nowhere", "no such folder"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--model", name]) == 2
    assert f"error: {name}: {said}" in capsys.readouterr().err


def door(host: str) -> Door:
    words = {"auth": None, "i_know_it_is_open": False, "allowed_hosts": [], "frame_ancestors": [], "root_path": ""}
    return app.door_of(argparse.Namespace(host=host, **words))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "page.example"])
def test_a_page_for_anybody_is_refused_unless_somebody_says_so(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--host", host]) == 2
    assert "--auth" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "LOCALHOST"])
def test_this_machine_needs_no_password(host: str) -> None:
    assert door(host).knows("localhost:7860") and not door(host).knows("page.example")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line"),
        ("anna\n", "line 1: expected user:password"),
        ("a:b\n:c", "line 2"),
        ("a:", "line 1"),
    ],
)
def test_a_file_of_passwords_that_is_none_is_named(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users").write_text(text)
    assert app.main(["--host", "192.0.2.1", "--auth", str(tmp_path / "users")]) == 2
    written = capsys.readouterr().err
    assert said in written and "anna" not in written


def test_passwords_may_hold_colons(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("anna:a:b \n\notto:ü\n", encoding="utf-8")
    assert app.read_passwords(tmp_path / "users") == {"anna": "a:b ", "otto": "ü"}


def test_names_of_folders_are_no_markup(tiny_model: EgmaModel, processor: EgmaProcessor, tmp_path: Path) -> None:
    model = page_model(tiny_model, processor)
    model.name = "`<img src=x onerror=alert(1)>**a**"
    (tmp_path / "model").mkdir()
    record = {"data": {"a": {"generated": True}}, "settings": {"model": "runs/<script>alert(1)<!script>"}}
    (tmp_path / "model" / "training_state.json").write_text(json.dumps(record))
    model.trained_on = app.trained_on(tmp_path / "model")
    for said in (app.about(model, None), _banner(model, None)):
        assert "<" not in said and "**a" not in said


@pytest.mark.parametrize("port", ["99999", "0", "-5", "abc"])
def test_a_port_that_is_none_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--port", port]) == 2
    assert "--port" in capsys.readouterr().err


def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert app.main(["--port", str(taken.getsockname()[1])]) == 2
    assert "choose another port with --port" in capsys.readouterr().err


def test_a_corpus_that_is_none_is_named(
    tmp_path: Path, tiny_model: EgmaModel, processor: EgmaProcessor, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    assert app.main(["--model", str(tmp_path / "model"), "--data", str(tmp_path / "data")]) == 2
    assert "holds no converted corpus" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_waits_is_removed_when_the_program_is_told_to_end(
    tmp_path: Path, tiny_model: EgmaModel, processor: EgmaProcessor, phantom_data: Path, ending: signal.Signals
) -> None:
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    (tmp_path / "temporary").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "app.py", "--model", tmp_path / "model", "--data", phantom_data, "--port", port]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(url)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        # what nobody asks for, as after a click that came too late
        left = httpx.post(f"{url}/gradio_api/upload", files={"files": ("SECRET.png", b"SECRET")}).json()
        assert Path(left[0]).is_file() and Path(left[0]).is_relative_to(tmp_path)
        process.send_signal(ending)
        assert process.wait(timeout=20) == 0
    assert list((tmp_path / "temporary").iterdir()) == []  # no folder either, of ours or of Gradio's


@pytest.mark.parametrize(
    ("generated", "said"),
    [
        ([True], "trained on GENERATED pictures only, so that it knows nothing of real ones"),
        ([False], "trained on pictures that are not generated"),
        ([True, False], "trained on generated and other pictures"),
    ],
)
def test_it_says_what_the_model_was_trained_on(tmp_path: Path, generated: list[bool], said: str) -> None:
    data = {str(place): {"generated": one} for place, one in enumerate(generated)} | {"training": "10 readings"}
    state = {"data": data, "settings": {"model": None}}
    (tmp_path / "training_state.json").write_text(json.dumps(state))
    assert app.trained_on(tmp_path) == said
    state["settings"] = {"model": "runs/demo/egma"}
    (tmp_path / "training_state.json").write_text(json.dumps(state))
    assert app.trained_on(tmp_path).startswith("fine-tuned from egma on ")


def test_a_corpus_that_holds_a_few_generated_pictures_is_not_called_real(tmp_path: Path) -> None:
    data = {"ours": {"generated": False, "sources": ["phantom/tracker/mouse", "tracker/mouse"]}}
    (tmp_path / "training_state.json").write_text(json.dumps({"data": data, "settings": {"model": None}}))
    assert app.trained_on(tmp_path) == "trained on generated and other pictures"


def test_a_model_without_a_record_is_said_to_have_none(tmp_path: Path) -> None:
    assert "not recorded" in app.trained_on(tmp_path)


def test_about_names_model_and_generated_data(
    tiny_model: EgmaModel, processor: EgmaProcessor, phantom_data: Path
) -> None:
    said = app.about(page_model(tiny_model, processor), Corpus(phantom_data))
    assert "`tiny`, untrained" in said and "**generated**: no patient exists" in said and "No medical device" in said
