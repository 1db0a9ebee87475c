"""The page of `app.py`: what is on it, and what happens when a person does something."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gradio as gr
import matplotlib
import numpy as np
from starlette.middleware import Middleware

from dataset_scripts.conversion import Recording
from dataset_scripts.schema import UserError
from egma_evaluation.prompts import PROMPT_FOLDER, read_prompt_file
from egma_page.corpus import Corpus, centre_of, example_recording, examples_view
from egma_page.inputs import PROMPT_SEPARATOR, open_picture, open_recording, picture_of, typed_prompts, typed_sentences
from egma_page.recorder import reading_of_trace
from egma_page.safety import (
    MAX_UPLOAD_BYTES,
    UPLOADS_CHECKED_EVERY_SECONDS,
    UPLOADS_KEPT_SECONDS,
    SecurityHeaders,
    friendly,
    refuse_addresses,
    taken,
    upload,
)
from egma_page.session import MAX_SESSIONS, PageModel, Session, Sessions
from egma_page.views import Json, align_view, classify_view, gaze_view, picture_id, picture_view

STATIC = Path(__file__).with_name("static")
SCRIPTS = ("drawing.js", "viewer.js", "player.js", "recorder.js", "lists.js")
COLOR_MAPS = ("magma", "viridis", "cividis", "gray")  # perceptually uniform, readable without colour vision
MAX_WAITING, MODEL = 16, "model"
PICTURE_TYPES = [".png", ".jpg", ".jpeg", ".dcm", ".dicom"]
GAZE_TYPES, SPEECH_TYPES = [".json", ".csv"], [".json", ".vtt", ".srt", ".txt"]
DEFAULT_PROMPTS = 4  # of each finding
SAMPLE_QUERY = "There is a pleural effusion."


class Handlers:
    """What the page's events do. Every open page has a session of its own.

    Args:
        corpus: of the examples and the gallery; None: the page opens empty.
    """

    def __init__(self, model: PageModel, corpus: Corpus | None) -> None:
        self.model, self.corpus, self.sessions = model, corpus, Sessions()

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(request.session_hash)

    def start(self, request: gr.Request) -> tuple[Any, ...]:
        """The first example, so that the page opens with a picture: picture, report, lines, playback, recorder."""
        if self.corpus is None or not self.corpus.examples:
            return None, "", None, None, None
        return self._example(0, request)

    def choose_example(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """Picture, report, lines, playback, recorder of the example that was chosen."""
        place = event._data.get("place") if isinstance(event._data, dict) else None
        if self.corpus is None or type(place) is not int or not 0 <= place < len(self.corpus.examples):
            raise UserError("There is no such example.")
        return self._example(place, request)

    def _example(self, place: int, request: gr.Request) -> tuple[Any, ...]:
        assert self.corpus is not None
        reading, session = self.corpus.examples[place], self._session(request)
        session.show(picture_of(reading), example_recording(reading))
        session.report = [sentence["text"] for sentence in reading["sentences"]]
        report = "\n".join(session.report)
        return picture_view(session.picture), report, *self._views(session), self._empty_recorder(session)

    def align(self, image: str | None, report: str, request: gr.Request) -> tuple[Any, ...]:
        """Another picture: itself, its lines, playback and recorder. Without a report yet, there are no lines."""
        session = self._session(request)
        if image is None:
            raise UserError("Choose an image first.")
        with taken(image) as path:
            picture = open_picture(path)
        sentences = typed_sentences(report) if report else []
        session.show(picture)
        session.report = sentences
        return picture_view(session.picture), *self._views(session), self._empty_recorder(session)

    def read(self, report: str, request: gr.Request) -> tuple[Json, Any]:
        """Another report of the same picture: lines, and playback unless the recording has sentences of its own."""
        session = self._session(request)
        session.report = typed_sentences(report)
        spoken = session.recording is not None and session.recording.sentences
        return align_view(self.model, session), gr.skip() if spoken else self._playback(session)

    def _views(self, session: Session) -> tuple[Json, Json]:
        return align_view(self.model, session), self._playback(session)

    def _playback(self, session: Session) -> Json:
        return gaze_view(self.model, session, *centre_of(self.corpus, self.model.sigma))

    def show_recording(
        self, gaze: str | None, transcript: str | None, report: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """A recording of the session's picture: report, lines and playback. Its own sentences become the report."""
        session = self._session(request)
        with ExitStack() as stack:
            gaze_path, speech = (stack.enter_context(taken(one)) if one else None for one in (gaze, transcript))
            if session.picture is None:
                raise UserError("Choose an image first: the one that was looked at.")
            if gaze_path is None:
                raise UserError("Choose a recording first.")
            recording, notes = open_recording(gaze_path, speech, session.picture)
        typed = typed_sentences(report) if report and not recording.sentences else []
        session.recording, session.notes = recording, notes
        session.report = [sentence["text"] for sentence in recording.sentences] or typed
        return "\n".join(session.report), *self._views(session)

    def classify(self, prompts: str, request: gr.Request) -> Json:
        """Findings of the session's picture by prompts that the user edits."""
        return classify_view(self.model, self._session(request), typed_prompts(prompts))

    def find_images(self, query: str, request: gr.Request, progress: gr.Progress = gr.Progress()) -> Json:  # noqa: B008
        """Pictures of the gallery that fit a text."""
        sentences = typed_sentences(query)
        return self._gallery(progress).find_images(self.model, self._session(request), sentences)

    def find_reports(self, request: gr.Request, progress: gr.Progress = gr.Progress()) -> Json:  # noqa: B008
        """Reports of the gallery that fit the session's picture."""
        session = self._session(request)
        self.model.image_bank(session)
        return self._gallery(progress).find_reports(self.model, session)

    def _gallery(self, progress: gr.Progress) -> Any:
        if self.corpus is None:
            raise UserError("There is no gallery to search: start the page with --data and a converted corpus.")
        return self.corpus.gallery(self.model, lambda share, words: progress(share, desc=words))

    def finish_recording(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """A trace of the mouse: recorder with the reading to download, report, lines and playback."""
        session = self._session(request)
        if session.picture is None:
            raise UserError("Choose an image first.")
        if not isinstance(event._data, dict):
            raise UserError("The trace has no samples.")
        reading = reading_of_trace(event._data, session.picture)
        session.recording = Recording(reading["sentences"], reading["fixations"], [], [])
        session.report, session.notes = [s["text"] for s in reading["sentences"]], ["recorded with a mouse"]
        recorder = self._empty_recorder(session) | {"reading": reading}
        return recorder, "\n".join(session.report), *self._views(session)

    def _empty_recorder(self, session: Session) -> Json:
        return {"picture": picture_id(session.picture), "reading": None}

    def forget(self, request: gr.Request) -> None:
        """The page was closed."""
        self.sessions.forget(request.session_hash)


def build_page(handlers: Handlers, about: str) -> gr.Blocks:
    """The whole page.

    Args:
        about: Markdown on what it is, which model and which data it shows.
    """
    refuse_addresses()
    keep = (UPLOADS_CHECKED_EVERY_SECONDS, UPLOADS_KEPT_SECONDS)
    with gr.Blocks(title="EGMA", analytics_enabled=False, delete_cache=keep) as page:
        gr.Markdown(
            f"# EGMA: where does each sentence look?\n{_banner(handlers.model, handlers.corpus)}",
            elem_classes="egma-banner",
        )
        picture = _component("picture")
        with gr.Row(elem_classes="egma-page"):
            with gr.Column(scale=1, min_width=280, elem_classes="egma-inputs"):
                examples = _component("examples", value=examples_view(handlers.corpus))
                image = upload("Radiograph (PNG, JPEG or DICOM)", PICTURE_TYPES)
                report = gr.Textbox(
                    label="Report", lines=6, max_lines=14, placeholder="One sentence a line", elem_id="report"
                )
                show = gr.Button("Show where each sentence looks", variant="primary")
            with gr.Column(scale=3, min_width=320), gr.Tabs():
                with gr.Tab("Align"):
                    lines = _component("viewer", label="Sentences")
                with gr.Tab("Gaze"):
                    playback = _component("player")
                    with gr.Row():
                        gaze = upload("Recording (JSON, or a tracker's CSV)", GAZE_TYPES)
                        speech = upload("Its transcript, if apart (JSON, VTT, SRT, TXT)", SPEECH_TYPES)
                    play = gr.Button("Show this recording")
                with gr.Tab("Classify"):
                    prompts = gr.Textbox(
                        default_prompts(), label="Finding: prompt | prompt, a finding a line", lines=5, max_lines=12
                    )
                    classify = gr.Button("Score the findings", variant="primary")
                    findings = _component("viewer", label="Findings")
                with gr.Tab("Retrieve"):
                    query = gr.Textbox(SAMPLE_QUERY, label="Text", elem_id="query")
                    with gr.Row():
                        to_images = gr.Button("Find images that fit the text", variant="primary")
                        to_reports = gr.Button("Find reports that fit the radiograph")
                    results = _component("results")
                with gr.Tab("Record"):
                    recorder = _component("recorder")
                with gr.Tab("About"):
                    gr.Markdown(about)
        shown = [picture, report, lines, playback, recorder]
        model_events: dict[str, Any] = {"concurrency_id": MODEL, "concurrency_limit": 1}
        page_events: dict[str, Any] = model_events | {"api_visibility": "private"}

        page.load(friendly(handlers.start), None, shown, show_progress="hidden", **page_events)
        examples.choose(friendly(handlers.choose_example), None, shown, show_progress="hidden", **page_events)
        uploaded = image.upload(
            friendly(handlers.align),
            [image, report],
            [picture, lines, playback, recorder],
            api_name="align",
            show_progress_on=image,
            **model_events,
        )
        _clear_after(uploaded, [image])
        gr.on(
            [show.click, report.submit],
            friendly(handlers.read),
            report,
            [lines, playback],
            show_progress="hidden",
            api_name="read",
            **model_events,
        )
        played = play.click(
            friendly(handlers.show_recording),
            [gaze, speech, report],
            [report, lines, playback],
            api_name="gaze",
            **model_events,
        )
        _clear_after(played, [gaze, speech])
        classify.click(friendly(handlers.classify), prompts, findings, api_name="classify", **model_events)
        gr.on(
            [to_images.click, query.submit],
            friendly(handlers.find_images),
            query,
            results,
            api_name="find_images",
            **model_events,
        )
        to_reports.click(friendly(handlers.find_reports), None, results, api_name="find_reports", **model_events)
        recorder.finish(friendly(handlers.finish_recording), None, [recorder, report, lines, playback], **page_events)
        page.unload(_forgetting(page, handlers))
    page.queue(max_size=MAX_WAITING)
    return page


def _clear_after(event: Any, uploads: list[gr.File]) -> None:
    """What was uploaded is gone, whether it could be read or not."""
    for outcome in (event.success, event.failure):
        outcome(lambda: dict.fromkeys(uploads), None, uploads, api_visibility="private")


def _forgetting(page: gr.Blocks, handlers: Handlers) -> Any:
    def forget(request: gr.Request) -> None:
        handlers.forget(request)
        # Gradio keeps the last values of a page's components
        page.state_holder.session_data.pop(request.session_hash or "", None)

    return forget


def _component(kind: str, value: Any = None, label: str = "") -> gr.HTML:
    """A component that `static/` draws from its JSON; nothing of the value becomes HTML."""
    return gr.HTML(
        value,
        html_template=f'<div class="egma egma-{kind}"></div>',
        js_on_load=f"egma.start('{kind}', element, props, watch, trigger, {json.dumps(label)}); // 'choose' 'finish'",
        apply_default_css=False,
        elem_classes=f"egma-holder-{kind}",
    )


def _banner(model: PageModel, corpus: Corpus | None) -> str:
    shown = "" if corpus is None else "; examples: generated data" if corpus.generated else "; examples: corpus data"
    return f"**Research software, no medical device.** Model: {_plain(model.name)}, {model.trained_on}{shown}."


def _plain(text: str) -> str:
    """A name in which nothing is Markdown or HTML."""
    return "".join(character if character.isalnum() or character in "-_./ " else "_" for character in text)


def default_prompts() -> str:
    """The package's prompts of REFLACX's findings, the first of each, as the page edits them."""
    classes = read_prompt_file(PROMPT_FOLDER / "reflacx.yaml").classes
    return "\n".join(
        f"{name}: {f' {PROMPT_SEPARATOR} '.join(prompts[:DEFAULT_PROMPTS])}" for name, prompts in classes.items()
    )


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` needs for this page: its own scripts and styles, and nothing that leaves the machine."""
    scripts = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
    color_maps = {name: _bytes_of(name) for name in COLOR_MAPS}
    return {
        "theme": gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        "head": f"<script>window.egmaColorMaps = {json.dumps(color_maps)};\n{scripts}</script>",
        "css": (STATIC / "page.css").read_text(encoding="utf-8"),
        "share": False,
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "footer_links": [],
        "max_file_size": MAX_UPLOAD_BYTES,
        "state_session_capacity": MAX_SESSIONS,  # of Gradio's own copies of what the components show
        "app_kwargs": {"middleware": [Middleware(SecurityHeaders)]},
    }


def _bytes_of(color_map: str) -> list[int]:
    """256 colours as red, green, blue, one after the other."""
    colors = matplotlib.colormaps[color_map](np.arange(256))[:, :3]
    return [int(value) for value in np.round(255 * colors).ravel()]
