"""The page of `app.py`: what is on it, and which of `handlers` answers what."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import matplotlib
import numpy as np

from egma.inference.prompts import PROMPT_FOLDER, read_prompt_file
from egma.page.corpus import Corpus, examples_view
from egma.page.handlers import ALIGN, Handlers
from egma.page.inputs import PROMPT_SEPARATOR
from egma.page.safety import friendly_process, plain, upload
from egma.page.session import PageModel, Sessions
from egma.page.uploads import MAX_UPLOAD_BYTES

STATIC = Path(__file__).with_name("static")
SCRIPTS = (
    *("maps.js", "optics.js", "timeline.js", "words.js", "zip.js", "drawing.js", "handling.js", "exports.js"),
    *("viewer_lines.js", "viewer.js", "player.js", "recorder.js", "lists.js", "typed.js", "connection.js"),
)
COLOR_MAPS = ("magma", "viridis", "cividis", "gray")  # perceptually uniform, readable without colour vision
MAX_WAITING, AT_ONCE = 64, 16
IN_TURN: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": AT_ONCE}
PICTURE_TYPES = [".png", ".jpg", ".jpeg", ".dcm", ".dicom"]
GAZE_TYPES, SPEECH_TYPES = [".json", ".csv"], [".json", ".vtt", ".srt", ".txt"]
DEFAULT_PROMPTS = 4  # of each finding
OWN_RECORDING = (
    "Your own, of the picture that is shown: JSON with the schema's fixations, or a tracker's CSV; its transcript "
    "(JSON, VTT, SRT or TXT) where that is a file apart."
)
SAMPLE_QUERY = "There is a pleural effusion."


class Parts(NamedTuple):
    """The components that events read and write."""

    picture: gr.HTML
    examples: gr.HTML
    tabs: gr.Tabs
    image: gr.File
    report: gr.Textbox
    show: gr.Button
    lines: gr.HTML
    playback: gr.HTML
    gaze: gr.File
    speech: gr.File
    play: gr.Button
    prompts: gr.Textbox
    classify: gr.Button
    findings: gr.HTML
    query: gr.Textbox
    to_images: gr.Button
    to_reports: gr.Button
    results: gr.HTML
    recorder: gr.HTML


class Page(gr.Blocks):
    """What Gradio makes of the page, and the sessions of those who have it open."""

    def __init__(self, sessions: Sessions, **options: Any) -> None:
        super().__init__(**options)
        self.sessions = sessions

    async def process_api(self, *inputs: Any, **options: Any) -> Any:
        """One event of a session after the other."""
        async with self.sessions.of(options.get("session_hash")).lock:
            return await friendly_process(super().process_api)(*inputs, **options)


def build_page(handlers: Handlers, about: str) -> Page:
    """The whole page.

    Args:
        about: Markdown on what it is, which model and which data it shows.
    """
    with Page(handlers.sessions, title="EGMA", analytics_enabled=False, fill_width=True) as page:
        _connect(page, _lay_out(handlers, about), handlers)
    page.queue(max_size=MAX_WAITING, api_open=False)  # closed are the routes that pass the queue by
    return page


def _lay_out(handlers: Handlers, about: str) -> Parts:
    banner = _banner(handlers.model, handlers.corpus, handlers.second)
    gr.Markdown(f"# EGMA: where does each sentence look?\n{banner}", elem_classes="egma-banner")
    parts: dict[str, Any] = {"picture": _component("picture")}
    with gr.Row(elem_classes="egma-page"):
        with gr.Column(scale=1, min_width=240):
            parts["examples"] = _component("examples", examples_view(handlers.examples), events=["choose"])
            parts["image"] = upload("Radiograph", PICTURE_TYPES, "radiograph")
            parts["report"] = gr.Textbox(
                handlers.first_report(),  # not with the first picture, which may come when somebody types already
                label="Report",
                lines=6,
                max_lines=14,
                placeholder="One sentence a line; a full stop ends one, too. Shift and Enter shows them",
                elem_id="report",
            )
            parts["show"] = gr.Button("Show where each sentence looks", variant="primary")
        with gr.Column(scale=5, min_width=320), gr.Tabs() as parts["tabs"]:
            with gr.Tab("Align", id=ALIGN):
                parts["lines"] = _component("viewer", label="Sentences", hint="Choose an image and type a report.")
            with gr.Tab("Gaze"):
                parts["playback"] = _component("player")
                gr.Markdown(OWN_RECORDING)
                with gr.Row():
                    parts["gaze"] = upload("Recording", GAZE_TYPES, "recording")
                    parts["speech"] = upload("Transcript", SPEECH_TYPES, "transcript")
                parts["play"] = gr.Button("Show this recording")
            with gr.Tab("Classify"):
                findings = "Finding: prompt | prompt, a finding a line"
                parts["prompts"] = gr.Textbox(
                    default_prompts(), label=findings, lines=5, max_lines=12, elem_id="prompts"
                )
                parts["classify"] = gr.Button("Score the findings", variant="primary")
                parts["findings"] = _component("viewer", label="Findings", hint="Press the button to score them.")
            with gr.Tab("Retrieve"):
                parts["query"] = gr.Textbox(SAMPLE_QUERY, label="Text", elem_id="query")
                with gr.Row():
                    parts["to_images"] = gr.Button("Find images that fit the text", variant="primary")
                    parts["to_reports"] = gr.Button("Find reports that fit the radiograph")
                parts["results"] = _component("results", events=["image", "report"])
            with gr.Tab("Record"):
                parts["recorder"] = _component("recorder", events=["finish"])
            with gr.Tab("About"):
                gr.Markdown(about)
    return Parts(**parts)


def _connect(page: gr.Blocks, on: Parts, handlers: Handlers) -> None:
    views = [on.lines, on.playback]
    shown = [on.picture, on.report, *views, on.recorder]
    silent: dict[str, Any] = {"show_progress": "hidden"}
    inner: dict[str, Any] = silent | IN_TURN | {"api_visibility": "private"}

    typed: Any = [on.report, on.query, on.prompts]
    page.load(None, typed, typed, js="(...shown) => egma.typed(...shown)", api_visibility="private")
    if handlers.examples:
        page.load(handlers.start, None, [on.picture, *views, on.recorder], **inner)
    on.examples.choose(handlers.choose_example, None, shown, **inner)
    uploaded = on.image.upload(
        handlers.align, [on.image, on.report], shown, api_name="align", show_progress_on=on.image, **IN_TURN
    )
    _clear_after(uploaded, [on.image])
    read = [on.show.click, on.report.submit]
    gr.on(read, handlers.read, on.report, views, api_name="read", **silent, **IN_TURN)
    inputs = [on.gaze, on.speech, on.report]
    played = on.play.click(
        handlers.show_recording, inputs, [on.report, *views], api_name="gaze", show_progress_on=on.gaze, **IN_TURN
    )
    _clear_after(played, [on.gaze, on.speech])
    find = [on.to_images.click, on.query.submit]
    scored = on.classify.click(handlers.classify, on.prompts, on.findings, api_name="classify", **IN_TURN)
    images = gr.on(find, handlers.find_images, on.query, on.results, api_name="find_images", **IN_TURN)
    reports = on.to_reports.click(handlers.find_reports, None, on.results, api_name="find_reports", **IN_TURN)
    for asked, shown_there in ((scored, on.findings), (images, on.results), (reports, on.results)):
        asked.failure(lambda: None, None, shown_there, api_visibility="private", **silent)  # nothing of before stays
    image = on.results.image(handlers.choose_image, None, [on.tabs, *shown], **inner)
    report = on.results.report(handlers.choose_report, None, [on.tabs, on.report, *views], **inner)
    for opened in (image, report):  # where the focus was is no longer seen
        opened.success(None, js="() => egma.focusPicture()", api_visibility="private")
    on.recorder.finish(handlers.finish_recording, None, [on.recorder, on.report, *views], **inner)
    page.unload(_forgetting(page, handlers))


def _clear_after(event: Any, uploads: list[gr.File]) -> None:
    """What was uploaded is gone, whether it could be read or not."""
    for outcome in (event.success, event.failure):
        outcome(lambda: dict.fromkeys(uploads), None, uploads, api_visibility="private")


def _forgetting(page: gr.Blocks, handlers: Handlers) -> Any:
    def forget(request: gr.Request) -> None:
        name = request.session_hash or ""
        handlers.sessions.forget(name)
        page.state_holder.session_data.pop(name, None)  # Gradio keeps the last values of a page's components

    return forget


def _component(kind: str, value: Any = None, events: Sequence[str] = (), **words: str) -> gr.HTML:
    """A component that `static/` draws from its JSON; nothing of the value becomes HTML."""
    given = f"{json.dumps(words)}, {json.dumps(events)}"
    return gr.HTML(
        value,
        html_template=f'<div class="egma egma-{kind}"></div>',
        js_on_load=f"egma.start('{kind}', element, props, watch, trigger, {given});",
        apply_default_css=False,
        elem_classes=f"egma-holder-{kind}",
    )


def _banner(model: PageModel, corpus: Corpus | None, second: PageModel | None = None) -> str:
    shown = "" if corpus is None else "; examples: generated data" if corpus.generated else "; examples: corpus data"
    beside = "" if second is None else f"; beside it in Align: {plain(second.name)}, {second.trained_on}"
    return f"**Research software, no medical device.** Model: {plain(model.name)}, {model.trained_on}{beside}{shown}."


def default_prompts() -> str:
    """The package's prompts of REFLACX's findings, the first of each, as the page edits them."""
    classes = read_prompt_file(PROMPT_FOLDER / "reflacx.yaml").classes
    return "\n".join(
        f"{name}: {f' {PROMPT_SEPARATOR} '.join(prompts[:DEFAULT_PROMPTS])}" for name, prompts in classes.items()
    )


def launch_options() -> dict[str, Any]:
    """What `mount_gradio_app` needs for this page: its own scripts and styles, and nothing that leaves the machine."""
    scripts = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
    styles = (STATIC / "page.css").read_text(encoding="utf-8")
    color_maps = {name: _bytes_of(name) for name in COLOR_MAPS}
    return {
        "theme": gr.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        # not as Gradio's `css`, which takes the commas of a selector apart
        "head": f"<style>{styles}</style><script>window.egmaColorMaps = {json.dumps(color_maps)};\n{scripts}</script>",
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "footer_links": [],
        "max_file_size": MAX_UPLOAD_BYTES,
    }


def _bytes_of(color_map: str) -> list[int]:
    """256 colours as red, green, blue, one after the other."""
    colors = matplotlib.colormaps[color_map](np.arange(256))[:, :3]
    return [int(value) for value in np.round(255 * colors).ravel()]
