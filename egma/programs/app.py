"""A page that shows where every sentence of a report looks: `make app`, or `python app.py --model DIR_or_ID`.

Align, Gaze, Classify, Retrieve, Record: docs/page.md. The page answers on this machine alone unless --host says
otherwise, which takes --auth; it asks nothing of any other machine, and keeps nothing that a person uploads.
"""

import argparse
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from datasets import disable_progress_bars
from transformers.utils import logging as transformers_logging

from dataset_scripts.command_line import Parser, program
from dataset_scripts.files.texts import read_text
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import GENERATED_PREFIX, UserError
from egma import SAMPLE_MODEL, SAMPLE_READINGS
from egma.inference.models import load_model
from egma.page import UPLOADS
from egma.page.corpus import Corpus
from egma.page.guard import LOCAL_HOSTS, Door
from egma.page.handlers import Handlers
from egma.page.index import kept_banks
from egma.page.page import build_page
from egma.page.safety import plain, silence_readers
from egma.page.server import answering
from egma.page.session import PageModel
from egma.page.views import SCORE_TITLES

DEMO = Path("runs/demo")
ABOUT = """### What this is

An EGMA model (eye-gaze guided multi-modal alignment, Ma et al., NeurIPS 2024) compares every patch of a chest
radiograph with every sentence of a report. A map shows those cosines: bright is where the model finds the sentence,
whether it is true or not. Such a model is trained to look where radiologists looked while saying a sentence.

**No medical device**: research software, not for diagnosis. A convincing map can be wrong.

### What is shown here

* Model: `{model}`, {trained_on}; patch grid {grid} x {grid}; its own score is the *{score}*.
* {data}

### What happens to what you upload

It is decoded in memory, on this machine, and forgotten when the page is closed; the uploaded file is removed as soon as
it is read. Logged are its size and a hash. No tag of a DICOM file is shown or kept. Nothing is sent anywhere.
"""


@program
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--model", help="folder or Hub id; default: the demo's, else the package's sample")
    parser.add_argument("--data", type=Path, help="converted corpus of examples and gallery; default: as the model's")
    parser.add_argument("--compare", metavar="MODEL", help="a second model, whose maps Align shows beside the first's")
    parser.add_argument("--index", type=Path, metavar="FOLDER", help="keeps the gallery's embeddings for later starts")
    parser.add_argument("--host", default="127.0.0.1", help="address to answer on; default: this machine alone")
    parser.add_argument("--port", type=_port, default=7860)
    parser.add_argument("--auth", type=Path, metavar="FILE", help="who may use the page: a line user:password for each")
    parser.add_argument("--i-know-it-is-open", action="store_true", help="another --host, and no --auth")
    parser.add_argument("--allowed-hosts", nargs="+", default=[], metavar="NAME", help="names of a proxy's page")
    parser.add_argument("--root-path", default="", help="where a proxy has the page, such as /egma")
    parser.add_argument("--frame-ancestors", nargs="+", default=[], metavar="ORIGIN", help="who may frame the page")
    arguments = parser.parse_args(argv)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)  # so that what was uploaded is removed then, too
    logging.basicConfig(format="%(message)s")
    logging.getLogger("egma.page").setLevel(logging.INFO)
    silence_readers()
    try:
        door = door_of(arguments)
        check_address(arguments.host, arguments.port)
        page = make_page(arguments.model, arguments.data, arguments.compare, arguments.index)
        with answering(page, arguments.host, arguments.port, door, UPLOADS):
            print(f"the page answers on http://{arguments.host}:{arguments.port} (Ctrl-C ends it)", flush=True)
            while page.is_running:
                time.sleep(0.1)
    except KeyboardInterrupt:
        pass


def door_of(arguments: argparse.Namespace) -> Door:
    """Whom the page answers; raises UserError where that would be anybody, and nobody said so."""
    host = arguments.host.lower()
    passwords = {} if arguments.auth is None else read_passwords(arguments.auth)
    if host not in LOCAL_HOSTS and not passwords and not arguments.i_know_it_is_open:
        raise UserError(
            f"--host {host}: whoever reaches that address could use the page; name a file of user:password lines with "
            "--auth, or say --i-know-it-is-open"
        )
    hosts = LOCAL_HOSTS.union(map(str.lower, [host, *arguments.allowed_hosts]))
    ancestors = " ".join(["'self'", *arguments.frame_ancestors])
    return Door(hosts, ancestors, passwords, arguments.root_path.rstrip("/"))


def read_passwords(path: Path) -> dict[str, str]:
    """The passwords of a file of `user:password` lines; raises UserError where a line is none, and where none is."""
    lines = [line for line in read_text(path, path, Ledger()).splitlines() if line.strip()]
    pairs = [line.partition(":") for line in lines]
    for number, (user, _, password) in enumerate(pairs, 1):
        if not user or not password:
            raise UserError(f"{path}: line {number}: expected user:password")
    if not pairs:
        raise UserError(f"{path}: no line; expected user:password, a line a user")
    return {user: password for user, _, password in pairs}


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to {2**16 - 1}, got {text}")
    return int(text)


def check_address(host: str, port: int) -> None:
    """Raise UserError where no page can answer: the port is in use, or the host is not this machine."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise UserError(
            f"{host}:{port}: {error.strerror}; choose another port with --port, or host with --host"
        ) from None


def make_page(name: str | None, data: Path | None, compared: str | None = None, index: Path | None = None) -> Any:
    """The page of a model, by its folder or Hub id, and a corpus; of the demo where there is one, else of the package.

    A second model, if named, has its maps beside the first's. The folder `index` keeps what a search needs.

    Raises:
        UserError: no such model, or no such corpus.
    """
    if name is None and not (DEMO / "egma").is_dir():
        print(f"there is no model in {DEMO / 'egma'}: this is the package's sample (--model shows yours)", flush=True)
        name, data = SAMPLE_MODEL, data or Path(SAMPLE_READINGS)
    name = name or str(DEMO / "egma")
    transformers_logging.set_verbosity_error()
    if data is None and (DEMO / "data").is_dir():
        data = DEMO / "data"
    corpus = None if data is None else Corpus(data, partial(kept_banks, index, name) if index else None)
    if corpus is not None:
        disable_progress_bars()
        _ = corpus.examples  # a folder that is no corpus is named before the model is loaded
    shown = page_model(name)
    second = None if compared is None else page_model(compared)
    if second is not None and second.name == shown.name:  # of two folders: with the folder that each lies in
        shown.name, second.name = ("/".join(Path(one).absolute().parts[-2:]) for one in (name, compared or ""))
    return build_page(Handlers(shown, corpus, second), about(shown, corpus))


def page_model(name: str) -> PageModel:
    """A model by its folder or Hub id; raises UserError where there is none."""
    return PageModel(*load_model(name), Path(name).name if Path(name).is_dir() else name, trained_on(Path(name)))


def trained_on(folder: Path) -> str:
    """What the model's own record says of its training data, and of the model that it was fine-tuned from."""
    record = folder / "training_state.json"
    if not record.is_file():
        return "its training data are not recorded"
    state = json.loads(record.read_text(encoding="utf-8"))
    corpora = [of for of in state["data"].values() if isinstance(of, dict)]
    generated = {of["generated"] for of in corpora}
    if any(source.startswith(GENERATED_PREFIX) for of in corpora for source in of.get("sources", ())):
        generated.add(True)  # a corpus may hold a few
    said = {True: "GENERATED pictures only", False: "pictures that are not generated"}
    data = said[generated.pop()] if len(generated) == 1 else "generated and other pictures"
    start = state["settings"].get("model")
    if start:
        return f"fine-tuned from {plain(Path(start).name)} on {data}"
    return f"trained on {data}" + (", so that it knows nothing of real ones" if data == said[True] else "")


def about(model: PageModel, corpus: Corpus | None) -> str:
    if corpus is None:
        data = "No corpus: start with `--data` for examples and a gallery."
    else:
        data = f"Examples and gallery: `{plain(corpus.folder.resolve().name)}`, " + (
            "**generated**: no patient exists." if corpus.generated else "as converted; under its own terms."
        )
    return ABOUT.format(
        model=plain(model.name),
        trained_on=model.trained_on,
        grid=model.grid,
        score=SCORE_TITLES[model.score],
        data=data,
    )


if __name__ == "__main__":
    sys.exit(main())
