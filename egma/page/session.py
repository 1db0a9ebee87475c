"""The model, and what each open page works on: kept in memory, and forgotten when the page is closed."""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from dataset_scripts.schema import Reading, Recording, UserError
from egma.inference.embeddings import (
    ImageBank,
    TextBank,
    batches,
    image_embeddings,
    inference,
    pooling_scale,
    text_embeddings,
)
from egma.page.inputs import Picture

SENTENCES_AT_ONCE = 8
MAX_SENTENCES_KEPT = 512
MAX_SECONDS = 30.0  # for the sentences of one request
MAX_SESSIONS, IDLE_SECONDS = 64, 3600.0
IMAGE_ID = "picture"
Result = TypeVar("Result")
LOST = "The server no longer has your picture: choose it again. Your report is kept."


@dataclass
class Session:
    """What one page works on: its picture, report and recording, and the embeddings of what was encoded for it."""

    picture: Picture | None = None
    image: ImageBank | None = None
    twin: "Session | None" = None  # the same for a second model, beside the first
    sentences: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)
    report: list[str] = field(default_factory=list)
    given_report: str | None = None  # that came with an example or a recording
    recording: Recording | None = None
    by_mouse: bool = False  # the recording is of a pointer, which is where the words are, and not ahead of them
    notes: list[str] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # what a page asks is done one after the other
    lost: bool = False  # the page shows a picture that is not here
    last_used_seconds: float = field(default_factory=time.monotonic)

    def show(self, picture: Picture, recording: Recording | None = None) -> None:
        """Another picture; nothing of the one before it stays."""
        self.picture, self.image, self.lost = picture, None, False
        self.record(recording)

    def shown(self) -> Picture:
        """The picture; raises UserError where there is none yet, or no longer."""
        if self.picture is None:
            raise UserError(LOST if self.lost else "Choose an image first.")
        return self.picture

    def record(self, recording: Recording | None, notes: Sequence[str] = (), by_mouse: bool = False) -> None:
        """Another recording of the picture, or none."""
        self.recording, self.notes, self.by_mouse = recording, list(notes), by_mouse


class Sessions:
    """The sessions by Gradio's session hash; the least recently used make room, and so do idle ones."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, name: str | None) -> Session:
        """The session of a page; a new one where there is none, and for each request without a name."""
        if not name:
            return Session()
        now = time.monotonic()
        with self._lock:
            for idle in [key for key, one in self._sessions.items() if now - one.last_used_seconds > IDLE_SECONDS]:
                del self._sessions[idle]
            session = self._sessions.setdefault(name, Session())
            session.last_used_seconds = now
            self._sessions.move_to_end(name)
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return session

    def has_lost(self, name: str) -> bool:
        """Whether nothing is kept of the picture that a page shows."""
        session = self.of(name)
        session.lost = session.picture is None
        return session.lost

    def forget(self, name: str) -> None:
        with self._lock:
            self._sessions.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._sessions


class PageModel:
    """A model with its processor and what the page says of it.

    `score` is the model's own zero-shot score (`EgmaConfig.zero_shot_score`); `trained_on` says on what.
    """

    def __init__(self, model: Any, processor: Any, name: str, trained_on: str) -> None:
        self.model, self.processor, self.name, self.trained_on = model, processor, name, trained_on
        self.grid: int = processor.grid_size
        self.score: str = model.config.zero_shot_score
        self.pooling_scale = pooling_scale(model)
        self.sigma: float = processor.gaze_kwargs["sigma"]
        self.lead_seconds: float = processor.gaze_kwargs["lead"]
        self._turns = ThreadPoolExecutor(1)

    def in_turn(self, work: Callable[..., Result], *inputs: Any) -> Result:
        """What takes time or memory: one at a time of all visitors, in the order in which they asked."""
        return self._turns.submit(work, *inputs).result()

    def image_bank(self, session: Session) -> ImageBank:
        """The embeddings of the session's picture, encoded once.

        Raises:
            UserError: there is no picture yet.
        """
        picture = session.shown()
        if session.image is None:
            pooled = self.in_turn(self._encode_picture, picture)
            session.image = ImageBank({IMAGE_ID: 0}, *pooled, self.pooling_scale)
        return session.image

    def _encode_picture(self, picture: Picture) -> tuple[Tensor, Tensor | None]:
        with inference(self.model):
            pixels = self.processor(images=[picture.image])["pixel_values"]
            return image_embeddings(self.model, pixels, [IMAGE_ID])

    def text_bank(self, session: Session, sentences: Sequence[str]) -> TextBank:
        """The embeddings of `sentences`; those that the session has had before are not encoded again.

        The others have their turns between one's batches.

        Raises:
            UserError: it took too long; what was encoded until then is kept.
        """
        distinct = list(dict.fromkeys(sentences))
        new = [text for text in distinct if text not in session.sentences]
        took_seconds = 0.0
        # of similar length together, so that little is padded
        for batch in batches(sorted(new, key=len), SENTENCES_AT_ONCE):
            if took_seconds > MAX_SECONDS:
                raise UserError(f"The sentences took more than {MAX_SECONDS:.0f} seconds; try fewer.")
            encoded, seconds = self.in_turn(self._encode_texts, batch)
            session.sentences |= zip(batch, encoded, strict=True)
            took_seconds += seconds
        embeddings = torch.stack([session.sentences[text] for text in distinct])
        for text in distinct:
            session.sentences.move_to_end(text)
        while len(session.sentences) > max(MAX_SENTENCES_KEPT, len(distinct)):
            session.sentences.popitem(last=False)
        return TextBank({text: place for place, text in enumerate(distinct)}, embeddings)

    def _encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, float]:
        """Embeddings, and the seconds that they took."""
        begun = time.monotonic()
        with inference(self.model):
            return text_embeddings(self.model, self.processor, texts), time.monotonic() - begun

    def cut(self, sentences: Sequence[str]) -> list[bool]:
        """Whether each of the sentences is longer than the model reads."""
        return list(self.processor.is_cut(sentences))

    def maps(self, session: Session, sentences: Sequence[str]) -> Tensor:
        """(n, G, G) cosines of the sentences with the patches of the session's picture, on the square frame."""
        patches = self.image_bank(session).mapped_patches()[0]
        embeddings = self.text_bank(session, sentences).of(sentences)
        return (embeddings @ patches.T).unflatten(-1, (self.grid, self.grid))


def reading_of(session: Session, sentences: Sequence[Any]) -> Reading:
    """The session's picture and recording as a reading of the schema."""
    assert session.picture is not None
    picture = session.picture
    return Reading(
        image=None,
        image_id=IMAGE_ID,
        study_id=None,
        subject_id=None,
        reading_id=IMAGE_ID,
        reader_id=None,
        source="page",
        view=None,
        sex=None,
        age_years=None,
        license=None,
        width=picture.width,
        height=picture.height,
        sentences=list(sentences),
        fixations=session.recording.fixations if session.recording else None,
        findings=[],
        boxes=[],
    )
