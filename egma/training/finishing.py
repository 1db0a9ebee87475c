"""The half of the processor's work that is done on the device, a batch at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from egma.training.augmentation import change_greys
from modeling_egma.gaze_egma import compose, packed_gaze
from modeling_egma.image_processing_egma import frame_values, warp_frames

# of a worker's batch; the first dimension is the image's
UNFINISHED = ("frame_affines", "greys", "geometry", "fixations", "windows")


@dataclass(frozen=True)
class Finishing:
    """What a worker left -> model inputs, by the functions that `EgmaProcessor` calls.

    The batch holds uint8 `pixel_values` (B, 1 or 3, H, W), `geometry` (B, 2, 3) of image fractions to frame fractions,
    `fixations` and `windows` (`gaze_egma.fixation_table`, `window_table`), and, where augmentation is on,
    `frame_affines` (B, 2, 3) and `greys` (B, 2).
    """

    values: Mapping[str, Any]  # the image processor's `VALUE_SETTINGS`
    grid: int
    sigma: float

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Frames and gaze, or the one of them that is there."""
        kept = {name: value for name, value in batch.items() if name not in (*UNFINISHED, "finish")}
        if "pixel_values" in batch:
            kept["pixel_values"] = self._frames(batch)
        if "windows" in batch:
            affines, geometry = batch.get("frame_affines"), batch["geometry"]
            geometry = geometry if affines is None else compose(affines, geometry)
            looked_at = batch["fixations"], batch["windows"]
            rows = batch["sentence_to_image"].to(geometry.device, non_blocking=True)
            maps, mask = packed_gaze(*looked_at, geometry, rows, self.grid, self.sigma)
            kept |= {"gaze_heatmaps": maps, "gaze_mask": mask}
        return kept

    def _frames(self, batch: Mapping[str, Any]) -> Tensor:
        frames, affines, greys = batch["pixel_values"], batch.get("frame_affines"), batch.get("greys")
        frames = frames if affines is None else warp_frames(frames, affines)
        return frame_values(frames if greys is None else change_greys(frames, greys), self.values)
