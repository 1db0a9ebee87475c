"""The generated corpus: radiographs, spoken reports and gaze, written as a MIMIC-EYE tree."""

from dataset_scripts.phantom.corpus import write_phantom

__all__ = ["write_phantom"]
