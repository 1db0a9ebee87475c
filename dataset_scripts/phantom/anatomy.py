"""Draws a schematic frontal chest radiograph: a field of X-ray density, then exposure, noise and normalisation.

The field is drawn on a coarse grid in body coordinates (see phantom_geometry) and enlarged; noise is added at full
size. Mean and standard deviation of the grey values are drawn without regard to what the picture shows.
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset_scripts.phantom.geometry import (
    LUNG_CENTRE_Y,
    LUNG_HALF_HEIGHT,
    LUNG_HALF_WIDTH,
    Ellipse,
    FloatArray,
    Pose,
    Side,
)
from dataset_scripts.phantom.world import Style

GRID_LONG_SIDE = 320
NOISE_TILE = 1024
RIB_SPACING, RIB_SLOPE = 0.168, 0.3


@dataclass(frozen=True)
class Body:
    """What differs between healthy patients; lengths in body units."""

    heart_scale: float
    heart_shift: float
    diaphragm_y: float
    rib_phase: float
    rib_density: float
    soft_tissue: float
    breast_density: float
    vessel_density: float
    vessel_phase: float
    stomach_bubble: bool


@dataclass(frozen=True)
class Exposure:
    """What differs between two pictures of one patient; `seed` places the noise."""

    contrast: float
    grey_mean: float
    grey_std: float
    noise: float
    blotch: float
    collimation_fraction: tuple[float, float, float, float]
    seed: int


@dataclass
class Canvas:
    """The coarse grid: body coordinates, lungs (0 to 1) and density, each (rows, columns); the world's seed."""

    x: FloatArray
    y: FloatArray
    lungs: FloatArray
    density: FloatArray
    world_seed: int


def sample_body(rng: np.random.Generator, style: Style = "a") -> Body:
    """A healthy patient; those of style "b" have other hearts, diaphragms and bones."""
    other = style == "b"
    return Body(
        heart_scale=rng.uniform(0.82, 1.0) if other else rng.uniform(0.9, 1.06),
        heart_shift=rng.normal(-0.03 if other else 0.0, 0.02),
        diaphragm_y=rng.uniform(0.44, 0.58) if other else rng.uniform(0.5, 0.66),
        rib_phase=rng.uniform(0.0, 1.0),
        rib_density=rng.uniform(0.14, 0.22) if other else rng.uniform(0.09, 0.17),
        soft_tissue=rng.uniform(0.08, 0.2) if other else rng.uniform(0.0, 0.12),
        breast_density=rng.uniform(0.06, 0.16) if rng.random() < 0.45 else 0.0,
        vessel_density=rng.uniform(0.08, 0.15),
        vessel_phase=rng.uniform(0.0, 6.0),
        stomach_bubble=bool(rng.random() < 0.5),
    )


def _sample_collimation(rng: np.random.Generator) -> tuple[float, float, float, float]:
    left, top, right, bottom = np.where(rng.random(4) < 0.25, rng.uniform(0.005, 0.035, 4), 0.0).tolist()
    return left, top, right, bottom


def sample_exposure(rng: np.random.Generator, style: Style = "a") -> Exposure:
    """How the picture is taken, drawn independently of the patient; in style "b" darker, flatter and noisier."""
    other = style == "b"
    return Exposure(
        contrast=rng.uniform(1.2, 1.6) if other else rng.uniform(1.5, 2.1),
        grey_mean=rng.uniform(90.0, 112.0) if other else rng.uniform(112.0, 138.0),
        grey_std=rng.uniform(40.0, 50.0) if other else rng.uniform(50.0, 60.0),
        noise=rng.uniform(0.03, 0.05) if other else rng.uniform(0.012, 0.03),
        blotch=rng.uniform(0.015, 0.035),
        collimation_fraction=_sample_collimation(rng),
        seed=int(rng.integers(2**31)),
    )


def heart_ellipse(body: Body, enlargement: float = 1.0) -> Ellipse:
    """The heart's outline; `enlargement` 1 is this patient's normal size."""
    size = body.heart_scale * enlargement
    return Ellipse(
        x=0.13 + body.heart_shift + 0.1 * (enlargement - 1.0),
        y=body.diaphragm_y - 0.2,
        x_radius=0.39 * size,
        y_radius=0.31 * (0.5 + 0.5 * size),
    )


def hilum_point(side: Side) -> tuple[float, float]:
    """Centre of the hilum in body coordinates."""
    return (0.25, -0.1) if side == "left" else (-0.24, -0.04)


def rib_y(x: float, index: int, body: Body) -> float:
    """Height of the `index`-th posterior rib at x."""
    return -0.95 + RIB_SPACING * (index + body.rib_phase) + RIB_SLOPE * x * x - 0.14 * abs(x)


def edge(distance: FloatArray, softness: float) -> FloatArray:
    """0 outside, 1 inside, 0.5 at distance 0; `softness` is the width of the transition in body units."""
    scaled: FloatArray = np.clip(distance * (0.5 / softness) + 0.5, 0.0, 1.0)
    return scaled * scaled * (3.0 - 2.0 * scaled)


def bump(distance: FloatArray, width: float) -> FloatArray:
    """A Gaussian of standard deviation `width` of a distance."""
    return np.exp(distance * distance * (-0.5 / width**2))


def ellipse_radius(canvas: Canvas, ellipse: Ellipse) -> FloatArray:
    """Distance from the centre of the ellipse, 1 on its border."""
    return np.hypot((canvas.x - ellipse.x) * (1 / ellipse.x_radius), (canvas.y - ellipse.y) * (1 / ellipse.y_radius))


def stroke(canvas: Canvas, points: list[tuple[float, float]], width: float) -> FloatArray:
    """A soft line of half width `width` through `points` (body coordinates), 0 to 1."""
    nearest = np.full_like(canvas.x, 9.0)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        length_squared = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = np.clip(((canvas.x - x0) * (x1 - x0) + (canvas.y - y0) * (y1 - y0)) / length_squared, 0.0, 1.0)
        dx, dy = canvas.x - x0 - along * (x1 - x0), canvas.y - y0 - along * (y1 - y0)
        nearest = np.minimum(nearest, dx * dx + dy * dy)
    return np.exp(nearest * (-0.5 / width**2))


def lung_radius(canvas: Canvas) -> FloatArray:
    """Distance from the centre of the rib cage, 1 on its inner wall."""
    return np.hypot(canvas.x * (1 / LUNG_HALF_WIDTH), (canvas.y - LUNG_CENTRE_Y) * (1 / LUNG_HALF_HEIGHT))


def diaphragm_distance(canvas: Canvas, body: Body) -> FloatArray:
    """Height above the diaphragm, negative below it, in body units."""
    base = body.diaphragm_y + 0.05 * (canvas.x > 0.0)
    dome = (np.abs(canvas.x) - 0.42) * 2.3
    return base + 0.14 * dome * dome - canvas.y


@functools.lru_cache(maxsize=16)
def noise_field(world_seed: int, scale_px: float) -> FloatArray:
    """A periodic field (1024, 1024) of Gaussian noise of unit variance, smoothed over `scale_px` (0: white)."""
    white = np.random.default_rng([world_seed, 7, round(10 * scale_px)]).standard_normal((NOISE_TILE, NOISE_TILE))
    if scale_px:
        frequency = np.fft.fftfreq(NOISE_TILE)[:, None] ** 2 + np.fft.rfftfreq(NOISE_TILE) ** 2
        white = np.fft.irfft2(np.fft.rfft2(white) * np.exp(-2 * (np.pi * scale_px) ** 2 * frequency))
    return (white / white.std()).astype(np.float32)


def noise_crop(world_seed: int, scale_px: float, shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """A part of the world's noise field at a random place."""
    row, column = (int(rng.integers(NOISE_TILE - size)) for size in shape)
    return noise_field(world_seed, scale_px)[row : row + shape[0], column : column + shape[1]]


def blank_canvas(pose: Pose, body: Body, world_seed: int) -> Canvas:
    """Coordinates and lungs of a body in a pose, density still 0."""
    shrink = GRID_LONG_SIDE / max(pose.width, pose.height)
    x, y = pose.body_grid(round(pose.width * shrink), round(pose.height * shrink))
    canvas = Canvas(x, y, np.zeros_like(x), np.zeros_like(x), world_seed)
    inner = np.abs(x) - (0.12 + 0.04 * np.cos(3.0 * (y + 0.1)))
    canvas.lungs = edge((1.0 - lung_radius(canvas)) * 0.86, 0.06) * edge(inner, 0.06)
    canvas.lungs *= edge(diaphragm_distance(canvas, body), 0.05)
    return canvas


def draw_healthy(canvas: Canvas, body: Body, heart_enlargement: float) -> None:
    """Everything but findings."""
    canvas.density += _soft_tissue(canvas, body)
    canvas.density += _vessels(canvas, body) * canvas.lungs
    canvas.density += _heart_and_mediastinum(canvas, body, heart_enlargement)
    canvas.density += _bones(canvas, body)


def _soft_tissue(canvas: Canvas, body: Body) -> FloatArray:
    x, y = np.abs(canvas.x), canvas.y
    shoulder = y + 1.08 - 0.26 * x * x + 0.12 * edge(0.6 - x, 0.4) + 0.9 * edge(0.29 - x, 0.13)
    inside = edge(shoulder, 0.06) * edge(1.2 + 0.05 * y - x, 0.08)
    abdomen = edge(-diaphragm_distance(canvas, body), 0.05)
    wall = edge((lung_radius(canvas) - 1.0) * 0.86, 0.1) * edge(y + 0.9, 0.6)
    density = inside * (0.5 + body.soft_tissue + 0.16 * np.maximum(abdomen, 0.9 * wall)) - 0.45 * (1.0 - inside)
    density -= canvas.lungs * (0.5 + 0.1 * y)
    if body.breast_density:
        breast = Ellipse(0.52, 0.42, 0.34, 0.34)
        density += body.breast_density * edge(1.0 - np.hypot((x - breast.x) / 0.36, (y - breast.y) / 0.34), 0.12)
    if body.stomach_bubble:
        density -= 0.16 * edge(1.0 - ellipse_radius(canvas, Ellipse(0.42, body.diaphragm_y + 0.2, 0.2, 0.09)), 0.3)
    return density


def _vessels(canvas: Canvas, body: Body) -> FloatArray:
    density = np.zeros_like(canvas.x)
    for sign, (x, y) in ((1, hilum_point("left")), (-1, hilum_point("right"))):
        dx, dy = (canvas.x - x) * sign, canvas.y - y
        distance = np.hypot(dx, dy)
        angle = np.arctan2(dy, dx)
        wave = np.cos(7.0 * angle + 0.9 * np.sin(7.0 * distance + body.vessel_phase) + body.vessel_phase * sign)
        branch = np.maximum(wave, 0.0) ** 6
        density += body.vessel_density * (dx > -0.12) * (branch * np.exp(-2.4 * distance) + 1.2 * bump(distance, 0.09))
    return density


def _heart_and_mediastinum(canvas: Canvas, body: Body, enlargement: float) -> FloatArray:
    x, y = canvas.x, canvas.y
    heart = edge(1.0 - ellipse_radius(canvas, heart_ellipse(body, enlargement)), 0.16)
    upper = edge(0.17 - np.abs(x - 0.02), 0.05) * edge(0.35 - y, 0.3)
    knob = edge(1.0 - ellipse_radius(canvas, Ellipse(0.15, -0.36, 0.11, 0.11)), 0.3)
    trachea = edge(0.045 - np.abs(x), 0.03) * edge(-0.3 - y, 0.1)
    solid = np.maximum(np.maximum(heart * 0.52, upper * 0.36), knob * 0.34)
    return solid * edge(diaphragm_distance(canvas, body) + 0.1, 0.3) - 0.16 * trachea


def _bones(canvas: Canvas, body: Body) -> FloatArray:
    x, y = np.abs(canvas.x), canvas.y
    cage = edge((1.05 - lung_radius(canvas)) * 0.86, 0.05) * edge(diaphragm_distance(canvas, body) + 0.12, 0.2)
    posterior = _rib_profile((y + 0.95 - RIB_SLOPE * x * x + 0.14 * x) / RIB_SPACING - body.rib_phase)
    anterior = _rib_profile((y + 0.9 + 0.55 * x - 0.25 * x * x) / (1.25 * RIB_SPACING) - body.rib_phase)
    ribs = body.rib_density * cage * edge(x - 0.1, 0.04) * (posterior + 0.45 * anterior * edge(x - 0.35, 0.3))
    vertebrae = 0.1 + 0.05 * np.cos(y * 36.0 + 6.0 * body.rib_phase)
    spine = edge(0.1 - np.abs(canvas.x), 0.04) * vertebrae
    clavicle_y = -0.72 - 0.13 * (x - 0.1) - 0.1 * np.sin(4.0 * x)
    clavicles = 0.2 * bump(y - clavicle_y, 0.025) * edge(x - 0.1, 0.05) * edge(0.92 - x, 0.05)
    scapulae = 0.08 * bump(x - 0.88 + 0.28 * (y + 0.5), 0.035) * edge(0.75 - np.abs(y + 0.45), 0.5)
    return ribs + spine + clavicles + scapulae


def _rib_profile(phase: FloatArray) -> FloatArray:
    distance = phase - np.round(phase)
    return edge(0.17 - np.abs(distance), 0.1) * (0.75 + 1.5 * np.abs(distance))


def develop(canvas: Canvas, pose: Pose, exposure: Exposure) -> Image.Image:
    """The density field as an 8-bit picture of the pose's size."""
    rng = np.random.default_rng(exposure.seed)
    shape = canvas.density.shape
    rows, columns = shape
    density = canvas.density + exposure.blotch * noise_crop(canvas.world_seed, 14.0, (rows, columns), rng)
    tone = np.tanh(exposure.contrast * (density - 0.32)).astype(np.float32)
    full = np.asarray(Image.fromarray(tone).resize((pose.width, pose.height), Image.Resampling.BICUBIC))
    size = (pose.height, pose.width)
    white, smooth = (noise_crop(canvas.world_seed, scale_px, size, rng) for scale_px in (0.0, 1.2))
    grey = full + exposure.noise * (1.5 * white + smooth)
    _add_marker(grey, rng)
    return Image.fromarray(_normalised(grey, _frame(size, exposure), exposure))


def _add_marker(grey: FloatArray, rng: np.random.Generator) -> None:
    """The letter L that says which side is left, in the upper right corner."""
    height, width = grey.shape
    size = max(10, height // 34)
    x, y = round(width * rng.uniform(0.91, 0.94)), round(height * rng.uniform(0.05, 0.09))
    grey[y : y + size, x : x + size // 4] = 1.1
    grey[y + size - size // 4 : y + size, x : x + size * 2 // 3] = 1.1


def _frame(size: tuple[int, int], exposure: Exposure) -> tuple[slice, slice]:
    height, width = size
    left, top, right, bottom = exposure.collimation_fraction
    return (
        slice(round(top * height), height - round(bottom * height)),
        slice(round(left * width), width - round(right * width)),
    )


def _normalised(grey: FloatArray, frame: tuple[slice, slice], exposure: Exposure) -> NDArray[np.uint8]:
    """Grey values 0 to 255, black outside `frame`, with the exposure's mean and standard deviation over all pixels."""
    values = np.zeros_like(grey)
    values[frame] = grey[frame] - float(grey[frame].min()) + 0.05
    for _ in range(4):
        gain = exposure.grey_std / float(values.std())
        values = np.clip((values - float(values.mean())) * gain + exposure.grey_mean, 0.0, 255.0)
    return np.rint(values).astype(np.uint8)
