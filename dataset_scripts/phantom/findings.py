"""The catalogue of findings: where each one sits, and how it changes the density of the picture.

A finding is local: it changes the picture inside its places (ellipses in body coordinates) and hardly elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataset_scripts.phantom.anatomy import (
    Body,
    Canvas,
    bump,
    draw_healthy,
    edge,
    ellipse_radius,
    heart_ellipse,
    hilum_point,
    lung_radius,
    noise_crop,
    rib_y,
    stroke,
)
from dataset_scripts.phantom.geometry import Ellipse, FloatArray, Side, Zone, lung_outer_x, side_sign

Severity = Literal["small", "moderate", "large"]
SEVERITIES: tuple[Severity, ...] = ("small", "moderate", "large")
SEVERITY_SHARES = (0.3, 0.42, 0.28)
FINDING_COUNT_SHARES = (0.28, 0.29, 0.24, 0.13, 0.06)
ZONE_Y: dict[Zone, tuple[float, float]] = {"upper": (-0.6, -0.38), "mid": (-0.2, 0.05), "lower": (0.22, 0.38)}


@dataclass(frozen=True)
class Finding:
    """One finding of one patient; `side` and `zone` are None where they make no sense. `seed` fixes its texture."""

    kind: str
    side: Side | None
    zone: Zone | None
    severity: Severity
    places: tuple[Ellipse, ...]
    seed: int

    @property
    def label(self) -> str:
        """The REFLACX phase-3 label."""
        return KINDS[self.kind].label

    @property
    def grade(self) -> int:
        """0 small, 1 moderate, 2 large."""
        return SEVERITIES.index(self.severity)


@dataclass(frozen=True)
class Site:
    """Where a finding is asked for, before its places are worked out."""

    side: Side
    zone: Zone
    grade: int
    body: Body
    rng: np.random.Generator

    def pick(self, *values: float) -> float:
        """The value of this site's grade: small, moderate, large."""
        return values[self.grade]


@dataclass(frozen=True)
class Kind:
    """One kind of finding: its label, where it may sit, its place and its drawing."""

    label: str
    weight: float
    place: Callable[[Site], tuple[Ellipse, ...]]
    draw: Callable[[Canvas, Body, Finding], FloatArray]
    has_side: bool = True
    zones: tuple[Zone, ...] = ()


def sample_findings(rng: np.random.Generator, body: Body) -> tuple[Finding, ...]:
    """Zero to four findings of different labels that do not cover each other."""
    names = list(KINDS)
    weights = np.array([kind.weight for kind in KINDS.values()])
    order = rng.choice(len(names), size=len(names), replace=False, p=weights / weights.sum())
    wanted = int(rng.choice(len(FINDING_COUNT_SHARES), p=FINDING_COUNT_SHARES))
    found: list[Finding] = []
    for name in (names[index] for index in order):
        if len(found) < wanted and KINDS[name].label not in {finding.label for finding in found}:
            finding = _sample_apart(name, rng, body, found)
            found += [finding] if finding else []
    return tuple(found)


def _sample_apart(name: str, rng: np.random.Generator, body: Body, others: list[Finding]) -> Finding | None:
    for _ in range(6):
        finding = sample_finding(name, rng, body)
        taken = [place for other in others for place in other.places]
        if not any(mine.overlaps(place) for mine in finding.places for place in taken):
            return finding
    return None


def sample_finding(name: str, rng: np.random.Generator, body: Body) -> Finding:
    """One finding of a kind, at a random side, zone and severity."""
    kind = KINDS[name]
    side: Side = "left" if rng.random() < 0.5 else "right"
    zone = kind.zones[int(rng.integers(len(kind.zones)))] if kind.zones else None
    grade = int(rng.choice(3, p=SEVERITY_SHARES))
    places = kind.place(Site(side, zone or "mid", grade, body, rng))
    return Finding(
        name, side if kind.has_side else None, zone, SEVERITIES[grade], places, seed=int(rng.integers(2**31))
    )  # fmt: skip


def draw_density(canvas: Canvas, body: Body, findings: tuple[Finding, ...]) -> None:
    """Draw the patient with all findings into the canvas."""
    draw_healthy(canvas, body, heart_enlargement(findings))
    for finding in findings:
        canvas.density += KINDS[finding.kind].draw(canvas, body, finding)


def heart_enlargement(findings: tuple[Finding, ...]) -> float:
    """How much larger than normal the heart is drawn."""
    return next((_ENLARGEMENT[f.grade] for f in findings if f.kind == "enlarged heart"), 1.0)


_ENLARGEMENT = (1.3, 1.42, 1.55)


def _in_lung(site: Site, radius: float) -> tuple[float, float]:
    """A point of the site's zone at which a disc of `radius` lies in the lung field."""
    y = site.rng.uniform(*ZONE_Y[site.zone])
    inner = 0.24 + (0.22 if site.zone == "lower" and site.side == "left" else 0.0)
    outer = lung_outer_x(y) - 0.85 * radius
    return side_sign(site.side) * site.rng.uniform(min(inner + 0.6 * radius, outer), outer), y


def _place_disc(site: Site, radii: tuple[float, float, float]) -> tuple[Ellipse, ...]:
    radius = site.pick(*radii) * site.rng.uniform(0.9, 1.1)
    x, y = _in_lung(site, radius)
    return (Ellipse(x, y, radius, radius * site.rng.uniform(0.85, 1.15)),)


def _place_mirrored(x: float, y: float, x_radius: float, y_radius: float) -> tuple[Ellipse, ...]:
    return Ellipse(-x, y, x_radius, y_radius), Ellipse(x, y, x_radius, y_radius)


def _draw_nodule(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    return 0.42 * edge(1.0 - ellipse_radius(canvas, finding.places[0]), 0.3)


def _texture(canvas: Canvas, finding: Finding, scale_px: float) -> FloatArray:
    rows, columns = canvas.x.shape
    return noise_crop(canvas.world_seed, scale_px, (rows, columns), np.random.default_rng(finding.seed))


def _draw_consolidation(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    distance = ellipse_radius(canvas, finding.places[0]) + 0.13 * _texture(canvas, finding, 6.0)
    return 0.44 * edge(0.85 - distance, 0.35) * canvas.lungs


def _draw_groundglass(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    grains = 1.0 + 0.3 * _texture(canvas, finding, 2.0)
    return 0.24 * edge(1.0 - ellipse_radius(canvas, finding.places[0]), 0.4) * grains * canvas.lungs


def _draw_atelectasis(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    place = finding.places[0]
    tilt = np.random.default_rng(finding.seed).uniform(-0.5, 0.5) * place.y_radius
    bands = [-0.5, 0.5] if finding.grade == 2 else [0.0]
    density = np.zeros_like(canvas.x)
    for band in bands:
        y = place.y + band * place.y_radius
        ends = [(place.x - 0.85 * place.x_radius, y - tilt), (place.x + 0.85 * place.x_radius, y + tilt)]
        density += stroke(canvas, ends, (0.022, 0.03, 0.026)[finding.grade])
    return 0.46 * density * canvas.lungs


def _place_atelectasis(site: Site) -> tuple[Ellipse, ...]:
    half_length = site.pick(0.16, 0.21, 0.24)
    x, y = _in_lung(site, half_length)
    return (Ellipse(x, y, half_length, 0.1),)


def _place_effusion(site: Site) -> tuple[Ellipse, ...]:
    base, height = site.body.diaphragm_y + 0.08, site.pick(0.12, 0.2, 0.32)
    return (Ellipse(side_sign(site.side) * 0.6, base - 0.6 * height + 0.02, 0.3, 0.6 * height + 0.12),)


def _draw_effusion(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    sign, height = finding.places[0].x / 0.6, (0.12, 0.2, 0.32)[finding.grade]
    x = canvas.x * sign
    surface = body.diaphragm_y + 0.12 - height * np.clip((x - 0.28) * 2.4, 0.0, 1.3)
    return 0.5 * edge(canvas.y - surface, 0.05) * edge(x - 0.3, 0.05) * canvas.lungs


def _place_thickening(site: Site) -> tuple[Ellipse, ...]:
    y = site.rng.uniform(-0.25, 0.15)
    x = side_sign(site.side) * (lung_outer_x(y) - 0.05)
    return (Ellipse(x, y, 0.13, site.pick(0.22, 0.28, 0.34)),)


def _draw_thickening(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    place, depth = finding.places[0], (0.05, 0.07, 0.09)[finding.grade]
    inner_wall = edge(lung_radius(canvas) - 1.0 + depth / 0.86, 0.025)
    along = edge(0.8 * place.y_radius - np.abs(canvas.y - place.y), 0.08)
    return 0.36 * inner_wall * along * canvas.lungs * (canvas.x * place.x > 0.0)


def _place_pneumothorax(site: Site) -> tuple[Ellipse, ...]:
    bottom = site.pick(-0.5, -0.3, 0.0)
    outer = lung_outer_x(bottom) + 0.02
    x = 0.5 * (0.14 + outer)
    return (Ellipse(side_sign(site.side) * x, 0.5 * (bottom - 0.98), outer - x, 0.5 * (bottom + 0.98)),)


def _draw_pneumothorax(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    place = finding.places[0]
    bottom = place.y + place.y_radius
    depth = (0.15, 0.21, 0.27)[finding.grade] * edge(bottom - canvas.y, 0.3)
    gap = lung_radius(canvas) - 1.0 + depth
    here = canvas.lungs * edge(canvas.x * float(np.sign(place.x)) - 0.16, 0.04) * edge(bottom - canvas.y, 0.12)
    return here * (0.24 * bump(gap, 0.012) - 0.34 * edge(gap, 0.02))


def _place_edema(site: Site) -> tuple[Ellipse, ...]:
    return _place_mirrored(0.4, 0.02, site.pick(0.25, 0.28, 0.31), site.pick(0.3, 0.34, 0.38))


def _draw_edema(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    radius = np.minimum(*(ellipse_radius(canvas, place) for place in finding.places))
    lines = bump((canvas.y / 0.055 + _texture(canvas, finding, 10.0) * 0.4) % 1.0 - 0.5, 0.13)
    haze = (0.15, 0.2, 0.25)[finding.grade] * (1.0 + 0.3 * _texture(canvas, finding, 5.0))
    return edge(1.0 - radius, 0.5) * (haze + 0.1 * lines) * canvas.lungs


def _place_interstitial(site: Site) -> tuple[Ellipse, ...]:
    y = {"upper": -0.48, "mid": 0.0, "lower": 0.32}[site.zone]
    return _place_mirrored(0.56 if site.zone == "lower" else 0.44, y, 0.25, site.pick(0.17, 0.2, 0.23))


def _draw_interstitial(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    radius = np.minimum(*(ellipse_radius(canvas, place) for place in finding.places))
    net = bump(_texture(canvas, finding, 2.6), 0.3) - 0.1
    return (0.26, 0.31, 0.36)[finding.grade] * edge(1.0 - radius, 0.3) * net * canvas.lungs


def _place_heart(site: Site) -> tuple[Ellipse, ...]:
    return (heart_ellipse(site.body, _ENLARGEMENT[site.grade]),)


def _draw_nothing(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    """An enlarged heart is drawn with the anatomy."""
    return np.zeros_like(canvas.x)


def _place_hilum(site: Site) -> tuple[Ellipse, ...]:
    x, y = hilum_point(site.side)
    return (Ellipse(x + 0.05 * side_sign(site.side), y, site.pick(0.13, 0.15, 0.17), site.pick(0.14, 0.17, 0.2)),)


def _draw_hilum(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    place = finding.places[0]
    lobes = np.zeros_like(canvas.x)
    for dx, dy in ((0.0, -0.45), (0.1, 0.35), (0.3, -0.05)):
        lobe = Ellipse(
            place.x + dx * place.x_radius * float(np.sign(place.x)), place.y + dy * place.y_radius,
            0.55 * place.x_radius, 0.5 * place.y_radius,
        )  # fmt: skip
        lobes = np.maximum(lobes, edge(1.0 - ellipse_radius(canvas, lobe), 0.4))
    return 0.3 * lobes


def _draw_bulla(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    place = finding.places[0]
    turn = np.random.default_rng(finding.seed).uniform(0.0, 2.0 * np.pi)
    density = np.zeros_like(canvas.x)
    for angle, size in ((turn, 0.52), (turn + 2.0, 0.42), (turn + 3.9, 0.46)):
        x = place.x + (1.0 - size) * place.x_radius * float(np.cos(angle))
        y = place.y + (1.0 - size) * place.y_radius * float(np.sin(angle))
        radius = ellipse_radius(canvas, Ellipse(x, y, size * place.x_radius, size * place.y_radius))
        density += 0.16 * bump(radius - 0.95, 0.08) - 0.3 * edge(0.95 - radius, 0.1)
    return density * canvas.lungs


def _place_hernia(site: Site) -> tuple[Ellipse, ...]:
    radius = site.pick(0.14, 0.17, 0.2)
    return (Ellipse(site.rng.uniform(0.02, 0.12), site.body.diaphragm_y - radius, 1.1 * radius, radius),)


def _draw_hernia(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    place = finding.places[0]
    radius = ellipse_radius(canvas, place)
    air = edge(0.88 - radius, 0.1) * edge(place.y - canvas.y, 0.02)
    return 0.34 * bump(radius - 0.92, 0.06) - 0.44 * air + 0.2 * edge(0.9 - radius, 0.1) * (1.0 - air)


def _place_mediastinum(site: Site) -> tuple[Ellipse, ...]:
    size = site.pick(0.14, 0.17, 0.2)
    return (Ellipse(side_sign(site.side) * 0.2, site.rng.uniform(-0.48, -0.36), size, 1.3 * size),)


def _draw_mediastinum(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    return 0.36 * edge(1.0 - ellipse_radius(canvas, finding.places[0]), 0.12) * (0.3 + 0.7 * canvas.lungs)


def _place_fracture(site: Site) -> tuple[Ellipse, ...]:
    index = int(site.rng.integers(3, 7))
    y = rib_y(0.65, index, site.body)
    x = min(0.7, lung_outer_x(y) - 0.08)
    return (Ellipse(side_sign(site.side) * x, rib_y(x, index, site.body), 0.14, 0.13),)


def _draw_fracture(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    place = finding.places[0]
    sign = float(np.sign(place.x))
    line = stroke(canvas, [(place.x - 0.02 * sign, place.y - 0.06), (place.x + 0.02 * sign, place.y + 0.06)], 0.014)
    step = (0.025, 0.035, 0.045)[finding.grade]
    inner = [(place.x - 0.09 * sign, place.y - 0.03), (place.x - 0.03 * sign, place.y - step)]
    outer = [(place.x + 0.03 * sign, place.y + step), (place.x + 0.09 * sign, place.y + 0.03 + step)]
    return 0.45 * (stroke(canvas, inner, 0.026) + stroke(canvas, outer, 0.026)) - 0.5 * line


def _place_pacemaker(site: Site) -> tuple[Ellipse, ...]:
    sign = side_sign(site.side)
    return Ellipse(0.6 * sign, -0.5, 0.16, 0.15), Ellipse(0.07 + 0.05 * sign, -0.09, 0.38, 0.6)


def _draw_pacemaker(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    box = finding.places[0]
    case = edge(1.0 - ((canvas.x - box.x) / 0.13) ** 4 - ((canvas.y - box.y) / 0.11) ** 4, 0.4)
    lead = [(box.x, box.y), (0.5 * box.x, -0.58), (-0.1, -0.4), (-0.12, -0.05), (0.0, 0.25), (0.3, 0.4)]
    return 0.6 * case + 0.35 * stroke(canvas, lead, 0.011)


def _place_catheter(site: Site) -> tuple[Ellipse, ...]:
    sign = side_sign(site.side)
    return (Ellipse(0.315 * sign - 0.065, -0.42, 0.44 + 0.07 * sign, 0.4),)


def _draw_catheter(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    sign = 1.0 if finding.side == "left" else -1.0
    points = [(0.62 * sign, -0.55), (0.5 * sign, -0.68), (0.25 * sign, -0.66), (-0.13, -0.46), (-0.15, -0.12)]
    return 0.42 * stroke(canvas, points, 0.01)


def _place_tube(site: Site) -> tuple[Ellipse, ...]:
    return (Ellipse(0.0, -0.72, 0.13, 0.32),)


def _draw_tube(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    walls = sum(stroke(canvas, [(dx, -1.02), (dx + 0.02, -0.46)], 0.013) for dx in (-0.035, 0.035))
    return np.asarray(0.36 * walls, dtype=np.float32)


def _place_wires(site: Site) -> tuple[Ellipse, ...]:
    return (Ellipse(0.0, -0.05, 0.13, 0.5),)


def _draw_wires(canvas: Canvas, body: Body, finding: Finding) -> FloatArray:
    density = np.zeros_like(canvas.x)
    for y in np.linspace(-0.45, 0.35, 5):
        loop = ellipse_radius(canvas, Ellipse(0.0, float(y), 0.055, 0.035))
        density += 0.45 * bump(loop - 1.0, 0.22)
    return density


_ALL_ZONES: tuple[Zone, ...] = ("upper", "mid", "lower")

KINDS: dict[str, Kind] = {
    "nodule": Kind(
        "Lung nodule or mass", 1.3, lambda site: _place_disc(site, (0.09, 0.12, 0.17)), _draw_nodule, zones=_ALL_ZONES
    ),
    "consolidation": Kind(
        "Consolidation", 1.3, lambda site: _place_disc(site, (0.19, 0.23, 0.28)), _draw_consolidation, zones=_ALL_ZONES
    ),
    "groundglass opacity": Kind(
        "Groundglass opacity", 1.2, lambda site: _place_disc(site, (0.2, 0.25, 0.3)), _draw_groundglass,
        zones=_ALL_ZONES,
    ),
    "atelectasis": Kind("Atelectasis", 1.2, _place_atelectasis, _draw_atelectasis, zones=("mid", "lower")),
    "pleural effusion": Kind("Pleural abnormality", 1.2, _place_effusion, _draw_effusion),
    "pleural thickening": Kind("Pleural abnormality", 0.4, _place_thickening, _draw_thickening),
    "pneumothorax": Kind("Pneumothorax", 1.2, _place_pneumothorax, _draw_pneumothorax),
    "pulmonary edema": Kind("Pulmonary edema", 1.2, _place_edema, _draw_edema, has_side=False),
    "interstitial disease": Kind(
        "Interstitial lung disease", 1.2, _place_interstitial, _draw_interstitial, has_side=False,
        zones=("upper", "lower"),
    ),
    "enlarged heart": Kind("Enlarged cardiac silhouette", 1.3, _place_heart, _draw_nothing, has_side=False),
    "enlarged hilum": Kind("Enlarged hilum", 1.1, _place_hilum, _draw_hilum),
    "bullae": Kind(
        "High lung volume / emphysema", 1.1, lambda site: _place_disc(site, (0.19, 0.22, 0.25)), _draw_bulla,
        zones=("upper",),
    ),
    "hiatal hernia": Kind("Hiatal hernia", 1.0, _place_hernia, _draw_hernia, has_side=False),
    "widened mediastinum": Kind("Abnormal mediastinal contour", 1.1, _place_mediastinum, _draw_mediastinum),
    "rib fracture": Kind("Acute fracture", 1.1, _place_fracture, _draw_fracture),
    "pacemaker": Kind("Support devices", 0.4, _place_pacemaker, _draw_pacemaker),
    "central line": Kind("Support devices", 0.4, _place_catheter, _draw_catheter),
    "endotracheal tube": Kind("Support devices", 0.35, _place_tube, _draw_tube, has_side=False),
    "sternotomy wires": Kind("Support devices", 0.35, _place_wires, _draw_wires, has_side=False),
}  # fmt: skip
LABELS: tuple[str, ...] = tuple(sorted({kind.label for kind in KINDS.values()}))
