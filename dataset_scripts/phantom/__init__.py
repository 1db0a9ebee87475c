"""The generated corpus: radiographs, spoken reports and gaze, written as MIMIC-EYE, EGD or REFLACX is."""

from dataset_scripts.phantom.corpus import write_phantom

__all__ = ["write_phantom"]
