"""From a recording to the gaze matrix, and the geometry that takes fixations along with the image.

Source: METHOD "From a recording to the gaze matrix" (`docs/method.md`). Two coordinate systems occur:

* image fractions: (0, 0) is the image's top left corner, (1, 1) its bottom right one;
* frame fractions: the same for the square frame that the model sees, into which the image was padded.

An affine map between them is a (2, 3) float64 tensor: `x' = a x + b y + c`, `y' = d x + e y + f`. Times are seconds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Span = tuple[float, float] | None

REQUIRED_COLUMNS = ("x", "y", "start", "duration")
SIGMA_COLUMNS = ("sigma_x", "sigma_y")
SHOWN_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
COLUMNS = (*REQUIRED_COLUMNS, *SIGMA_COLUMNS, *SHOWN_COLUMNS)


def gaze_matrix(
    fixations: Mapping[str, Any], spans: Sequence[Span], grid: int, sigma: float = 0.05, lead: float = 0.0
) -> Tensor:
    """Heat maps of one reading on the patch grid.

    A fixation counts for a sentence by the seconds of its overlap with the sentence's window. A sentence without any
    fixation, or without a time, takes the map of the whole recording.

    Args:
        fixations: equal-length columns `x`, `y` (frame fractions), `start`, `duration` (seconds); optionally
            `sigma_x`, `sigma_y` (frame fractions), which replace `sigma`, and the shown rectangle `x_min`, `y_min`,
            `x_max`, `y_max` (frame fractions), outside which nothing is drawn.
        spans: `(start, end)` of every sentence in seconds, or None for an untimed one.
        grid: G, cells along each side.
        sigma: width of a fixation's Gaussian as a fraction of the frame's side.
        lead: seconds by which the eyes run ahead of speech; moves every window earlier.

    Returns:
        float32 (m, G, G), rows top to bottom; each map's maximum is 1, or all of it is 0 when no fixation is left.

    Raises:
        ValueError: a missing column, columns of unequal length, a number that is not finite, a negative duration, a
            span that runs backwards, or settings out of range.

    >>> seen = {"x": [0.25, 0.75], "y": [0.25, 0.75], "start": [0.0, 1.0], "duration": [1.0, 1.0]}
    >>> gaze_matrix(seen, [(0.0, 1.0), None], grid=2, sigma=0.01).tolist()
    [[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]]
    """
    return gaze_matrices([fixations], [spans], grid, sigma, lead)[0]


def gaze_matrices(
    fixations: Sequence[Mapping[str, Any]],
    spans: Sequence[Sequence[Span]],
    grid: int,
    sigma: float = 0.05,
    lead: float = 0.0,
) -> list[Tensor]:
    """`gaze_matrix` of several readings in one batched computation; one (m, G, G) tensor a reading."""
    _check_settings(grid, sigma)
    if len(fixations) != len(spans):
        raise ValueError(f"expected spans for each of the {len(fixations)} recordings, got {len(spans)}")
    if not fixations:
        return []
    table, windows = fixation_table(fixations), window_table(spans, lead)
    maps = _draw(table, windows, grid, sigma)
    return [reading[: len(own)].float() for reading, own in zip(maps, spans, strict=True)]


def packed_gaze(
    table: Tensor, windows: Tensor, affines: Tensor, sentence_to_image: Tensor, grid: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """Heat maps of a batch's sentences, drawn at once on the tensors' device; the host waits for nothing.

    Args:
        table: see `fixation_table`, in image fractions, which `affines` (B, 2, 3) take to frame fractions.
        windows: see `window_table`.
        sentence_to_image: (N,), ascending.

    Returns:
        float32 (N, G, G), see `gaze_matrix`, and bool (B,): whether anything was drawn for the image.
    """
    _check_settings(grid, sigma)
    moved = _moved(dict(zip(COLUMNS, table.unbind(-1), strict=True)), affines[:, None])
    maps = _draw(torch.stack(list(moved.values()), dim=-1), windows, grid, sigma)
    place = torch.arange(len(sentence_to_image), device=maps.device)
    place = place - torch.searchsorted(sentence_to_image, sentence_to_image)
    drawn = maps[sentence_to_image, place].float()
    peaks = drawn.new_zeros(len(table)).index_add(0, sentence_to_image, drawn.amax(dim=(1, 2)))
    return drawn, peaks > 0


def _draw(table: Tensor, windows: Tensor, grid: int, sigma: float) -> Tensor:
    """Fixations (B, F, 10) in frame fractions and windows (B, M, 2) -> heat maps (B, M, G, G) in float64."""
    x, y, start, duration, sigma_x, sigma_y, x_min, y_min, x_max, y_max = table.unbind(-1)
    # who left the frame counts for nothing
    duration = torch.where((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1), duration, 0.0)
    columns = cell_integrals(x, sigma_x.nan_to_num(sigma), x_min.nan_to_num(0.0), x_max.nan_to_num(1.0), grid)
    rows = cell_integrals(y, sigma_y.nan_to_num(sigma), y_min.nan_to_num(0.0), y_max.nan_to_num(1.0), grid)
    cells = (rows[..., :, None] * columns[..., None, :]).flatten(2)
    earlier = torch.minimum(windows[..., 1, None], (start + duration)[:, None])
    later = torch.maximum(windows[..., 0, None], start[:, None])
    # an untimed window is NaN: its overlap is 0
    overlap = torch.nan_to_num((earlier - later).clamp(min=0))
    maps = overlap @ cells
    whole = duration[:, None] @ cells
    maps = torch.where(maps.amax(dim=-1, keepdim=True) > 0, maps, whole)
    peak = maps.amax(dim=-1, keepdim=True)
    return (maps / torch.where(peak > 0, peak, 1.0)).unflatten(-1, (grid, grid))


def cell_integrals(centre: Tensor, sigma: Tensor, low: Tensor, high: Tensor, grid: int) -> Tensor:
    """Integral of a unit Gaussian over every cell along one axis, clipped to [low, high]; (..., G)."""
    edges = torch.linspace(0, 1, grid + 1, dtype=centre.dtype, device=centre.device).expand(*centre.shape, -1)
    edges = torch.minimum(torch.maximum(edges, low[..., None]), high[..., None])
    # padded rows have sigma 0
    width = torch.where(sigma > 0, sigma, 1.0)[..., None] * math.sqrt(2)
    cumulative = torch.erf((edges - centre[..., None]) / width) / 2
    return cumulative.diff(dim=-1)


def fixation_table(recordings: Sequence[Mapping[str, Any] | None]) -> Tensor:
    """Recordings -> (B, F, 10) float64 in the order of `COLUMNS`.

    NaN where a recording lacks a column, 0 beyond its end.

    Raises:
        ValueError: see `gaze_matrix`.
    """
    tables = [_for_reading(row, _one_table, recording) for row, recording in enumerate(recordings)]
    return torch.nn.utils.rnn.pad_sequence(tables, batch_first=True)


def _one_table(recording: Mapping[str, Any] | None) -> Tensor:
    if recording is None:
        return torch.zeros(0, len(COLUMNS), dtype=torch.float64)
    columns = fixation_columns(recording)
    lacking = torch.full_like(columns["x"], math.nan)
    return torch.stack([columns.get(name, lacking) for name in COLUMNS], dim=-1)


def fixation_columns(fixations: Mapping[str, Any]) -> dict[str, Tensor]:
    """The columns of a recording as float64 tensors (F,), checked; optional columns that are None are left out.

    Raises:
        ValueError: see `gaze_matrix`.
    """
    missing = [name for name in REQUIRED_COLUMNS if fixations.get(name) is None]
    if missing:
        raise ValueError(f"fixations lack the column(s) {', '.join(missing)}; expected {', '.join(REQUIRED_COLUMNS)}")
    names = [name for name in COLUMNS if fixations.get(name) is not None]
    columns = [np.asarray(fixations[name], dtype=np.float64) for name in names]
    same = all(values.shape == columns[0].shape and values.ndim == 1 for values in columns)
    table = np.array(columns if same else [])
    # at once, as a batch has many columns; one by one only for the message
    if not same or not np.isfinite(table).all() or _any_out_of_range(names, table):
        for name, values in zip(names, columns, strict=True):
            _check_column(name, torch.tensor(values), expected_length=len(columns[0]))
    for group in (SIGMA_COLUMNS, SHOWN_COLUMNS):
        present = [name for name in group if name in names]
        if present and len(present) < len(group):
            raise ValueError(f"fixations have {', '.join(present)} but not all of {', '.join(group)}")
    return dict(zip(names, torch.from_numpy(table), strict=True))


def _any_out_of_range(names: Sequence[str], table: np.ndarray) -> bool:
    widths = [name in SIGMA_COLUMNS for name in names]
    return bool((table[names.index("duration")] < 0).any() or (table[widths] <= 0).any())


def _check_column(name: str, values: Tensor, expected_length: int) -> None:
    if values.ndim != 1 or len(values) != expected_length:
        raise ValueError(
            f"fixation column '{name}' has shape {tuple(values.shape)}, expected ({expected_length},) as 'x'"
        )
    bad = (~torch.isfinite(values)).nonzero().flatten()
    if len(bad):
        raise ValueError(f"fixation {int(bad[0])} has {name} = {float(values[bad[0]])}, expected a finite number")
    if name == "duration" and (values < 0).any():
        index = int((values < 0).nonzero()[0])
        raise ValueError(f"fixation {index} has duration {float(values[index])}, expected seconds >= 0")
    if name in SIGMA_COLUMNS and (values <= 0).any():
        index = int((values <= 0).nonzero()[0])
        raise ValueError(f"fixation {index} has {name} = {float(values[index])}, expected a width > 0")


def _check_settings(grid: int, sigma: float) -> None:
    if grid < 1:
        raise ValueError(f"grid must be at least 1 cell a side, got {grid}")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a fraction > 0 of the frame's side, got {sigma}")


def sentence_windows(spans: Sequence[Span], lead: float = 0.0) -> Tensor:
    """When the eyes looked for each sentence: its span, checked, earlier by `lead` seconds.

    Returns:
        (m, 2) float64 start and end in seconds; NaN where a sentence is untimed.

    Raises:
        ValueError: see `gaze_matrix`.
    """
    for index, span in enumerate(spans):
        if span is None:
            continue
        if len(span) != 2 or not all(map(math.isfinite, map(_as_float, span))):
            raise ValueError(f"span {index} is {tuple(span)}, expected (start, end) in seconds, or None when untimed")
        if span[1] < span[0]:
            raise ValueError(f"span {index} runs backwards: it starts at {span[0]} s and ends at {span[1]} s")
    untimed = (math.nan, math.nan)
    times = [untimed if span is None else tuple(span) for span in spans]
    return torch.from_numpy(np.array(times, dtype=np.float64).reshape(-1, 2) - lead)


def _as_float(value: Any) -> float:
    return math.nan if value is None else float(value)


def window_table(spans: Sequence[Sequence[Span]], lead: float = 0.0) -> Tensor:
    """`sentence_windows` of several readings as (B, M, 2), NaN where a reading has no more sentence."""
    if not math.isfinite(lead):
        raise ValueError(f"lead must be a finite number of seconds, got {lead}")
    windows = [_for_reading(row, sentence_windows, own, lead) for row, own in enumerate(spans)]
    return torch.nn.utils.rnn.pad_sequence(windows, batch_first=True, padding_value=math.nan)


def _for_reading(row: int, function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except ValueError as error:
        raise ValueError(f"gaze of image {row}: {error}") from None


def square_frame(width: float, height: float) -> Tensor:
    """Image fractions -> frame fractions for an image of `width` x `height` that is padded, centred, to a square.

    Returns:
        (2, 3) affine map.

    Raises:
        ValueError: a side that is not positive.
    """
    if not (width > 0 and height > 0):
        raise ValueError(f"expected an image with positive sides, got {width} x {height}")
    side = max(width, height)
    x_scale, y_scale = width / side, height / side
    return torch.tensor(
        [[x_scale, 0.0, (1 - x_scale) / 2], [0.0, y_scale, (1 - y_scale) / 2]],
        dtype=torch.float64,
    )


def maps_on_images(maps: Tensor, sizes: Sequence[tuple[float, float]], rows: int, columns: int) -> Tensor:
    """Maps on the square frame -> maps on the images, the padding cut off.

    Bilinear between the patches' centres, level beyond the outermost ones. An image is cut into equal cells along
    either side, whatever its shape: a share of the cells is a share of the image.

    Args:
        maps: (B, ..., G, G), those of image `b` at place `b`.
        sizes: (width, height) of every image, in any unit.

    Returns:
        (B, ..., rows, columns), of the maps' type.
    """
    grid = maps.shape[-1]
    shares = torch.tensor(sizes, dtype=torch.float64)
    shares = shares / shares.amax(dim=1, keepdim=True)
    across, down = (
        _patch_weights(shares[:, axis], cells, grid).to(maps).view(len(maps), *[1] * (maps.ndim - 3), cells, grid)
        for axis, cells in ((0, columns), (1, rows))
    )
    return down @ maps @ across.mT


def _patch_weights(share: Tensor, cells: int, grid: int) -> Tensor:
    """(B,) shares of the frame's side -> (B, cells, G) weights of the two patches around the centre of every cell."""
    middles = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    # along the frame, in patches: the centre of the first is 0
    places = ((share[:, None] * (middles - 0.5) + 0.5) * grid - 0.5).clamp(0, grid - 1)
    return (1 - (places[..., None] - torch.arange(grid)).abs()).clamp(0, 1)


def frame_affine(
    rotation_degrees: float = 0.0, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0), flip: bool = False
) -> Tensor:
    """Augmentation inside the frame: flip left-right, rotate clockwise and scale about the centre, then shift.

    Args:
        shift: fractions of the frame's side, to the right and down.

    Returns:
        (2, 3) affine map from frame fractions to frame fractions.
    """
    angle = math.radians(rotation_degrees)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    mirror = -1.0 if flip else 1.0
    linear = torch.tensor([[cosine * mirror, -sine], [sine * mirror, cosine]], dtype=torch.float64)
    centre = torch.full((2,), 0.5, dtype=torch.float64)
    offset = centre + torch.tensor(shift, dtype=torch.float64) - linear @ centre
    return torch.cat([linear, offset[:, None]], dim=1)


def frame_crop(x_min: float, y_min: float, x_max: float, y_max: float) -> Tensor:
    """Crop of the frame, given in frame fractions, that is resized to the whole frame; (2, 3) affine map.

    Raises:
        ValueError: an empty crop.
    """
    if not (x_min < x_max and y_min < y_max):
        raise ValueError(f"expected a crop with x_min < x_max and y_min < y_max, got {(x_min, y_min, x_max, y_max)}")
    x_scale, y_scale = 1 / (x_max - x_min), 1 / (y_max - y_min)
    return torch.tensor([[x_scale, 0.0, -x_min * x_scale], [0.0, y_scale, -y_min * y_scale]], dtype=torch.float64)


def compose(then: Tensor, first: Tensor) -> Tensor:
    """The affine map, or maps (..., 2, 3), that apply `first`, then `then`."""
    moved = then[..., :2] @ first
    return torch.cat([moved[..., :2], moved[..., 2:] + then[..., 2:]], dim=-1)


def invert(affine: Tensor) -> Tensor:
    """The affine map, or maps (..., 2, 3), back."""
    (a, b, c), (d, e, f) = (row.unbind(-1) for row in affine.unbind(-2))
    back = torch.stack([e, -b, b * f - c * e, -d, a, c * d - a * f], dim=-1).unflatten(-1, (2, 3))
    # in closed form: a solver on a GPU would make the host wait
    return back / (a * e - b * d)[..., None, None]


def transform_points(affine: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Apply an affine map to coordinates of any shape, or maps (..., 2, 3) to coordinates of the shape (...)."""
    (a, b, c), (d, e, f) = (row.unbind(-1) for row in affine.unbind(-2))
    return a * x + b * y + c, d * x + e * y + f


def transform_fixations(fixations: Mapping[str, Any], affine: Tensor) -> dict[str, Tensor]:
    """Move a recording along with its image.

    Widths follow the map's stretch along each new axis; the shown rectangle becomes the smallest upright rectangle
    around its moved corners. Fixations that leave the frame are kept here and dropped by `gaze_matrix`.
    """
    return _moved(fixation_columns(fixations), affine)


def _moved(columns: Mapping[str, Tensor], affine: Tensor) -> dict[str, Tensor]:
    moved = dict(columns)
    moved["x"], moved["y"] = transform_points(affine, columns["x"], columns["y"])
    if "sigma_x" in columns:
        (a, b), (d, e) = (row.unbind(-1) for row in affine[..., :2].unbind(-2))
        moved["sigma_x"] = torch.hypot(a * columns["sigma_x"], b * columns["sigma_y"])
        moved["sigma_y"] = torch.hypot(d * columns["sigma_x"], e * columns["sigma_y"])
    if "x_min" in columns:
        corners = [(columns[x], columns[y]) for x in ("x_min", "x_max") for y in ("y_min", "y_max")]
        points = [transform_points(affine, x, y) for x, y in corners]
        x, y = (torch.stack(axis) for axis in zip(*points, strict=True))
        moved |= {"x_min": x.amin(0), "y_min": y.amin(0), "x_max": x.amax(0), "y_max": y.amax(0)}
    return moved
