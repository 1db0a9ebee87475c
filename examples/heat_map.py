"""Where a model finds a sentence.

python examples/heat_map.py MODEL IMAGE "there is a left pleural effusion." OUTPUT.png
"""

import sys

import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from transformers import pipeline

import modeling_egma  # noqa: F401  or trust_remote_code=True below
from dataset_scripts.command_line import run_example


def main(model: str, image: str, sentence: str, output: str) -> None:
    ground = pipeline("egma-grounding", model=model)
    picture = ground.processor.image_processor.fetch_images(image)  # upright, as the model sees it
    found = ground(picture, sentence)[0]
    x_min, y_min, x_max, y_max = found["box"]
    plt.imshow(picture, cmap="gray")
    plt.imshow(found["heat_map"], cmap="magma", alpha=0.5)
    plt.gca().add_patch(Rectangle((x_min, y_min), x_max - x_min, y_max - y_min, fill=False, color="cyan"))
    plt.plot(*found["peak"], "c+")
    plt.title(f"{sentence}  {found['score']:.2f}")
    plt.axis("off")
    plt.savefig(output, dpi=150, bbox_inches="tight")
    print(f"peak {found['peak']}, box {tuple(round(edge) for edge in found['box'])}, written to {output}")


if __name__ == "__main__":
    sys.exit(run_example(main, __doc__))
