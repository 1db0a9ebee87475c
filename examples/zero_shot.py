"""Which finding fits a radiograph best: `python examples/zero_shot.py MODEL IMAGE "pleural effusion" pneumothorax`."""

import sys

from transformers import pipeline

import modeling_egma  # noqa: F401  or trust_remote_code=True below
from dataset_scripts.command_line import run_example


def main(model: str, image: str, *findings: str) -> None:
    classify = pipeline("zero-shot-image-classification", model=model)
    # the pipeline's own template speaks of photos
    for row in classify(image, candidate_labels=list(findings), hypothesis_template="there is a {}."):
        print(f"{row['score']:.3f}  {row['label']}")


if __name__ == "__main__":
    sys.exit(run_example(main, __doc__))
