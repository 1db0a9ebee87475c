"""The half of the processor's work that is done on the device, a batch at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
        frames, geometry = batch["pixel_values"], batch["geometry"]
        affines, greys = batch.get("frame_affines"), batch.get("greys")
        if affines is not None:
            frames, geometry = warp_frames(frames, affines), compose(affines, geometry)
        if greys is not None:
            frames = change_greys(frames, greys)
        rows = batch["sentence_to_image"]
        maps, mask = packed_gaze(batch["fixations"], batch["windows"], geometry, rows, self.grid, self.sigma)
        kept = {name: value for name, value in batch.items() if name not in (*UNFINISHED, "finish")}
        return kept | {"pixel_values": frame_values(frames, self.values), "gaze_heatmaps": maps, "gaze_mask": mask}
