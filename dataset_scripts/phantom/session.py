"""One generated patient: studies, pictures, findings, and the readings of them, independent of any file layout."""

import io
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from dataset_scripts.phantom.anatomy import (
    Body,
    Exposure,
    blank_canvas,
    develop,
    heart_ellipse,
    sample_body,
    sample_exposure,
)
from dataset_scripts.phantom.findings import Finding, draw_density, sample_findings
from dataset_scripts.phantom.gaze import Recording, record
from dataset_scripts.phantom.geometry import Ellipse, PixelBox, Pose, sample_pose
from dataset_scripts.phantom.report import Spoken, Word, anatomy, compose, time_words, written_report
from dataset_scripts.phantom.world import READER_COUNT, Reader, World

Corpus = Literal["reflacx", "egd"]
Pictures = dict[str, bytes]  # JPEG files by image id
MAX_READINGS, JPEG_QUALITY = 900_000, 92
DISCARDED_SHARE = 0.012
FOLLOWED_YEARS = 5  # from a patient's first study to the last
EGD_SHARE, BOTH_SHARE, SEVERAL_READERS_SHARE, SECOND_IMAGE_SHARE = 0.2, 0.01, 0.05, 0.04
TEST_SLOTS, VALIDATION_SLOTS, SPLIT_SLOTS = (4, 12, 20), (8, 16), 25
CHEST = Ellipse(0.0, -0.14, 0.95, 0.92)
INDICATIONS = (
    "___ year old patient with cough",
    "History: ___ with shortness of breath\n\n// evaluate for acute process",
    "___ year old patient with chest pain, please evaluate",
    "___ with fever.\n// pneumonia?",
    "Preoperative examination",
)


@dataclass(frozen=True)
class PlannedImage:
    """Which study (its position) a picture belongs to, and who reads it for which corpus."""

    study: int
    readers: tuple[tuple[Corpus, int], ...]


@dataclass(frozen=True)
class PatientPlan:
    """What is drawn before anything is known about findings; `first_reading` counts the readings before."""

    index: int
    first_reading: int
    images: tuple[PlannedImage, ...]


@dataclass(frozen=True)
class Mark:
    """Where one reader marked a finding (an ellipse inscribed in the box, pixels), and how sure, 1 to 5."""

    finding: Finding
    box: PixelBox
    certainty: int


@dataclass(frozen=True)
class SpokenReading:
    """One reading of one picture; `recording` is None when the eye tracking was discarded."""

    reading_id: str
    corpus: Corpus
    reader: Reader
    sentences: tuple[Spoken, ...]
    words: tuple[tuple[Word, ...], ...]
    recording: Recording | None
    marks: tuple[Mark, ...]
    chest: PixelBox

    @property
    def phase(self) -> int:
        """The phase of REFLACX, 1 to 3, that the id tells."""
        return int(self.reading_id[1])


@dataclass(frozen=True)
class Radiograph:
    """One picture, and who read it."""

    image_id: str
    pose: Pose
    exposure: Exposure
    readings: tuple[SpokenReading, ...]


@dataclass(frozen=True)
class Study:
    """One examination: the truth about the findings, the written report, the pictures."""

    study_id: int
    stay_id: int | None
    date: str
    time: str
    indication: str
    findings: tuple[Finding, ...]
    findings_text: tuple[str, ...]
    impression_text: tuple[str, ...]
    radiographs: tuple[Radiograph, ...]


@dataclass(frozen=True)
class Patient:
    """One generated patient, `age_years` old in the year of the first study."""

    subject_id: int
    split: Literal["train", "validate", "test"]
    sex: Literal["F", "M"]
    age_decade: int
    age_years: int
    body: Body
    studies: tuple[Study, ...]


def plan_patients(readings: int, seed: int) -> list[PatientPlan]:
    """Patients with exactly `readings` readings altogether."""
    plans: list[PatientPlan] = []
    total = 0
    while total < readings:
        images = _plan_images(np.random.default_rng([seed, 0, len(plans)]), readings - total)
        plans.append(PatientPlan(len(plans), total, images))
        total += sum(len(image.readers) for image in images)
    return plans


def _plan_images(rng: np.random.Generator, left: int) -> tuple[PlannedImage, ...]:
    images: list[PlannedImage] = []
    for study in range(int(rng.choice(3, p=(0.84, 0.12, 0.04))) + 1):
        for _ in range(1 + int(rng.random() < SECOND_IMAGE_SHARE)):
            readers = _plan_readers(rng)[:left]
            left -= len(readers)
            images += [PlannedImage(study, readers)] if readers else []
    return tuple(images)


def _plan_readers(rng: np.random.Generator) -> tuple[tuple[Corpus, int], ...]:
    kind, order = rng.random(), rng.permutation(READER_COUNT).tolist()
    several = int(rng.integers(2, 6)) if rng.random() < SEVERAL_READERS_SHARE else 1
    reflacx: list[tuple[Corpus, int]] = [("reflacx", reader) for reader in order[:several]]
    if kind < BOTH_SHARE:
        return ("reflacx", order[0]), ("egd", order[1])
    return (("egd", order[0]),) if kind < EGD_SHARE else tuple(reflacx)


def generate_patient(plan: PatientPlan, world: World) -> Patient:
    """Everything about one patient but the pixels; the same world and plan give the same patient."""
    rng = np.random.default_rng([world.seed, 1, plan.index])
    body = sample_body(rng, world.style)
    slot = plan.index % SPLIT_SLOTS
    positions = sorted({image.study for image in plan.images})
    decade = int(rng.integers(2, 9)) * 10
    studies = [_study(plan, position, body, world, rng) for position in positions]
    first = int(studies[0].date[:4])
    years = [first + (int(study.date[:4]) - first) % FOLLOWED_YEARS for study in studies]
    return Patient(
        subject_id=_scattered(plan.index, world.seed, 10_000_000),
        split="test" if slot in TEST_SLOTS else "validate" if slot in VALIDATION_SLOTS else "train",
        sex="F" if body.breast_density else "M",
        age_decade=decade,
        age_years=decade + int(np.random.default_rng([world.seed, 4, plan.index]).integers(10)),
        body=body,
        studies=tuple(replace(one, date=f"{year}{one.date[4:]}") for one, year in zip(studies, years, strict=True)),
    )


def _scattered(number: int, seed: int, first: int, count: int = 9_999_991) -> int:
    """A different id for every number: a permutation of range(count), a prime, chosen by the seed."""
    factor, offset = np.random.default_rng([seed, 2, first]).integers(1, count, 2).tolist()
    return first + (number * factor + offset) % count


def _study(plan: PatientPlan, position: int, body: Body, world: World, rng: np.random.Generator) -> Study:
    findings = sample_findings(rng, body)
    findings_text, impression_text = written_report(findings, body, world, rng)
    stay = int(rng.integers(30_000_000, 40_000_000))
    year, month, day = int(rng.integers(2110, 2205)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    hour, minute, second = (int(rng.integers(limit)) for limit in (24, 60, 60))
    first = plan.first_reading
    radiographs = []
    for image in plan.images:
        if image.study == position:
            radiographs.append(_radiograph(image, first, findings, body, world, rng))
        first += len(image.readers)
    return Study(
        study_id=_scattered(3 * plan.index + position, world.seed, 50_000_000),
        stay_id=stay if rng.random() < 0.6 else None,
        date=f"{year}{month:02}{day:02}",
        time=f"{hour * 10000 + minute * 100 + second}.{rng.integers(1000):03}",
        indication=INDICATIONS[int(rng.integers(len(INDICATIONS)))],
        findings=findings,
        findings_text=tuple(findings_text),
        impression_text=tuple(impression_text),
        radiographs=tuple(radiographs),
    )


def _radiograph(
    image: PlannedImage,
    first_reading: int,
    findings: tuple[Finding, ...],
    body: Body,
    world: World,
    rng: np.random.Generator,
) -> Radiograph:
    pose, exposure = sample_pose(rng, world.framing), sample_exposure(rng, world.style)
    image_id = "-".join(rng.bytes(4).hex() for _ in range(5))
    phase = _phase(len(image.readers)) if image.readers[-1][0] == "reflacx" else "P300"
    ids = [
        f"{phase}R{_scattered(first_reading + place, world.seed, 0, 999_983):06}" for place in range(len(image.readers))
    ]
    known = world.readers()
    readings = tuple(
        _reading(corpus, known[reader], reading_id, findings, body, pose, world, rng)
        for reading_id, (corpus, reader) in zip(ids, image.readers, strict=True)
    )
    return Radiograph(image_id, pose, exposure, readings)


def _phase(readers: int) -> str:
    """The beginning of the ids of an image's readings: the phases 1 and 2 are those with several readers an image."""
    if readers == 1:
        return "P300"
    return f"P1{readers:02}" if readers == READER_COUNT else f"P2{readers:02}"


def _reading(
    corpus: Corpus, reader: Reader, reading_id: str, findings: tuple[Finding, ...], body: Body, pose: Pose,
    world: World, rng: np.random.Generator,
) -> SpokenReading:  # fmt: skip
    sentences = compose(findings, body, world, rng)
    words = time_words(sentences, reader.words_per_second * rng.uniform(0.9, 1.1), rng.uniform(1.5, 5.0), rng)
    start_seconds = float(rng.uniform(-0.4, 0.1)) if corpus == "reflacx" else float(rng.uniform(0.01, 0.05))
    discarded = rng.random() < DISCARDED_SHARE
    looks = None if discarded else record(sentences, words, reader, pose, start_seconds, world.own_share, rng)
    return SpokenReading(
        reading_id=reading_id,
        corpus=corpus,
        reader=reader,
        sentences=sentences,
        words=words,
        recording=looks,
        marks=tuple(mark for finding in findings for mark in _marks(finding, pose, rng)),
        chest=pose.pixel_box(CHEST, rng.uniform(0.98, 1.1), clip=False),
    )


def _marks(finding: Finding, pose: Pose, rng: np.random.Generator) -> list[Mark]:
    certainty = int(rng.choice((2, 3, 4, 5), p=((0.06, 0.24, 0.3, 0.4), (0.0, 0.1, 0.3, 0.6))[finding.grade > 0]))
    return [Mark(finding, pose.pixel_box(place, rng.uniform(1.08, 1.2)), certainty) for place in finding.places]


def render(patient: Patient, study: Study, radiograph: Radiograph, world_seed: int) -> Image.Image:
    """The picture, 8-bit grey, of the pose's size."""
    canvas = blank_canvas(radiograph.pose, patient.body, world_seed)
    draw_density(canvas, patient.body, study.findings)
    return develop(canvas, radiograph.pose, radiograph.exposure)


def pictures_of(patient: Patient, world_seed: int) -> Pictures:
    """All pictures of a patient as JPEG files."""
    pictures: Pictures = {}
    for study in patient.studies:
        for radiograph in study.radiographs:
            buffer = io.BytesIO()
            render(patient, study, radiograph, world_seed).save(buffer, "JPEG", quality=JPEG_QUALITY)
            pictures[radiograph.image_id] = buffer.getvalue()
    return pictures


def anatomical_boxes(body: Body, pose: Pose) -> dict[str, PixelBox]:
    """Bounding boxes in pixels of the normal anatomy, by name."""
    regions = anatomy(body)
    named = {
        "cardiac silhouette": heart_ellipse(body),
        "upper mediastinum": regions["mediastinum"][0],
        "right lung": regions["right"][0],
        "left lung": regions["left"][0],
        "right hilar structures": regions["hila"][0],
        "left hilar structures": regions["hila"][1],
        "right costophrenic angle": regions["angles"][0],
        "left costophrenic angle": regions["angles"][1],
    }
    return {name: pose.pixel_box(place) for name, place in named.items()}
