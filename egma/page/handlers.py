"""What happens when a person does something on the page."""

from contextlib import ExitStack
from typing import Any

import gradio as gr

from dataset_scripts.schema import Reading, Recording, Sentence, UserError
from egma.evaluation.protocols.retrieval import report_sentences
from egma.inference.embeddings import TextBank
from egma.page.corpus import Corpus, Gallery, centre_of, example_recording
from egma.page.inputs import open_picture, open_recording, picture_of, typed_prompts, typed_sentences
from egma.page.recorder import reading_of_trace
from egma.page.safety import taken, warn
from egma.page.session import PageModel, Session, Sessions
from egma.page.views import Json, align_view, classify_view, gaze_view, picture_id, picture_view

ALIGN = "align"  # the id of its tab


class Handlers:
    """What the page's events do. Every open page has a session of its own.

    Args:
        corpus: of the examples and the gallery; None: the page opens empty.
        second: a model whose maps are shown beside the first's.
    """

    def __init__(self, model: PageModel, corpus: Corpus | None, second: PageModel | None = None) -> None:
        self.model, self.corpus, self.second, self.sessions = model, corpus, second, Sessions()

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(request.session_hash)

    @property
    def examples(self) -> list[Reading]:
        return [] if self.corpus is None else self.corpus.examples

    def first_report(self) -> str:
        """That of the first example, with which the page opens."""
        return "\n".join(_texts(self.examples[0]["sentences"])) if self.examples else ""

    def start(self, request: gr.Request) -> tuple[Any, ...]:
        """The first example, so that the page opens with a picture: picture, lines, playback, recorder."""
        picture, _, *views = self._example(0, request)
        return picture, *views

    def choose_example(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """Picture, report, lines, playback, recorder of the example that was chosen."""
        place = event._data.get("place") if isinstance(event._data, dict) else None
        if type(place) is not int or not 0 <= place < len(self.examples):
            raise UserError("There is no such example.")
        return self._example(place, request)

    def _example(self, place: int, request: gr.Request) -> tuple[Any, ...]:
        reading = self.examples[place]
        return self._reading(reading, _texts(reading["sentences"]), request)

    def _reading(self, reading: Reading, report: list[str], request: gr.Request) -> tuple[Any, ...]:
        """A corpus' picture and recording with a report."""
        assert self.corpus is not None
        session = self._session(request)
        session.show(picture_of(reading, self.corpus.generated), example_recording(reading))
        session.report, session.given_report = report, "\n".join(report)
        return picture_view(session.picture), session.given_report, *self._views(session), self._empty_recorder(session)

    def align(self, image: str | None, report: str, request: gr.Request) -> tuple[Any, ...]:
        """Another picture: itself, its report, lines, playback and recorder.

        The report that came with the picture before is taken away, one that was typed stays; without one, or one that
        cannot be read, there are no lines.
        """
        session = self._session(request)
        if image is None:
            raise UserError("Choose an image first.")
        with taken(image) as path:
            picture = self.model.in_turn(open_picture, path)
        session.show(picture)
        session.report = []
        if report == session.given_report:
            report = ""
        try:
            session.report = typed_sentences(report) if report else []
        except UserError as error:
            warn(f"The report was not read with the picture: {error}")
        return picture_view(session.picture), report, *self._views(session), self._empty_recorder(session)

    def read(self, report: str, request: gr.Request) -> tuple[Json, Any]:
        """Another report of the same picture: lines, and playback unless the recording has sentences of its own."""
        return self._read(self._session(request), report)

    def _read(self, session: Session, report: str) -> tuple[Json, Any]:
        session.report = typed_sentences(report)
        spoken = session.recording is not None and session.recording.sentences
        return self._lines(session), gr.skip() if spoken else self._playback(session)

    def _lines(self, session: Session) -> Json:
        shown = align_view(self.model, session, self._references() if session.report else None)
        return shown if self.second is None else shown | {"second": self._second_lines(self.second, session)}

    def _second_lines(self, model: PageModel, session: Session) -> Json:
        twin = session.twin = session.twin or Session()
        if session.picture is not None and twin.picture is not session.picture:
            twin.show(session.picture)
        twin.report = session.report
        return align_view(model, twin)

    def _references(self) -> TextBank | None:
        return None if self.corpus is None else self.corpus.references(self.model)

    def _views(self, session: Session) -> tuple[Json, Json]:
        return self._lines(session), self._playback(session)

    def _playback(self, session: Session) -> Json:
        return gaze_view(self.model, session, *centre_of(self.corpus, self.model.sigma))

    def show_recording(
        self, gaze: str | None, transcript: str | None, report: str, request: gr.Request
    ) -> tuple[Any, ...]:
        """A recording of the session's picture: report, lines and playback. Its own sentences become the report."""
        session = self._session(request)
        with ExitStack() as stack:
            gaze_path, speech = (stack.enter_context(taken(one)) if one else None for one in (gaze, transcript))
            picture = session.shown()
            if gaze_path is None:
                raise UserError("Choose a recording first.")
            opened = self.model.in_turn(open_recording, gaze_path, speech, picture)
        recording = opened.recording
        typed = typed_sentences(report) if report and not recording.sentences else []
        session.record(*opened)
        session.report = _texts(recording.sentences) or typed
        if recording.sentences:
            report = session.given_report = "\n".join(session.report)
        return report, *self._views(session)

    def classify(self, prompts: str, request: gr.Request) -> Json:
        """Findings of the session's picture by prompts that the user edits."""
        return classify_view(self.model, self._session(request), typed_prompts(prompts), self._references())

    def find_images(self, query: str, request: gr.Request, progress: gr.Progress = gr.Progress()) -> Json:  # noqa: B008
        """Pictures of the gallery that fit a text."""
        sentences = typed_sentences(query)
        return self._gallery(progress).find_images(self.model, self._session(request), sentences)

    def find_reports(self, request: gr.Request, progress: gr.Progress = gr.Progress()) -> Json:  # noqa: B008
        """Reports of the gallery that fit the session's picture."""
        session = self._session(request)
        self.model.image_bank(session)
        return self._gallery(progress).find_reports(self.model, session)

    def choose_image(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """An image that was found for a text, with that text: tab, picture, report, lines, playback, recorder."""
        reading = self._result(event)
        return gr.Tabs(selected=ALIGN), *self._reading(reading, typed_sentences(event._data.get("query")), request)

    def choose_report(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """A report that was found for the picture that is shown: tab, report, lines, playback."""
        session, report = self._session(request), "\n".join(report_sentences(self._result(event)))
        read = self._read(session, report)
        session.given_report = report
        return gr.Tabs(selected=ALIGN), report, *read

    def _result(self, event: gr.EventData) -> Reading:
        place = event._data.get("place") if isinstance(event._data, dict) else None
        return self._gallery(gr.Progress()).reading(place)

    def _gallery(self, progress: gr.Progress) -> Gallery:
        if self.corpus is None:
            raise UserError("There is no gallery to search: start the page with --data and a converted corpus.")
        return self.corpus.gallery(self.model, progress.tqdm)

    def finish_recording(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """A trace of the mouse: recorder with the reading to download, report, lines and playback."""
        session = self._session(request)
        picture = session.shown()
        if not isinstance(event._data, dict):
            raise UserError("The trace has no samples.")
        reading = self.model.in_turn(reading_of_trace, event._data, picture)
        recording = Recording(reading["sentences"], reading["fixations"], [], [])
        session.record(recording, ["recorded with a mouse"], by_mouse=True)
        session.report = _texts(recording.sentences)
        recorder = self._empty_recorder(session) | {"reading": reading}
        session.given_report = "\n".join(session.report)
        return recorder, session.given_report, *self._views(session)

    def _empty_recorder(self, session: Session) -> Json:
        return {"picture": picture_id(session.picture), "reading": None}


def _texts(sentences: list[Sentence]) -> list[str]:
    return [sentence["text"] for sentence in sentences]
