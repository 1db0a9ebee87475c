"""One command for all programs: `egma COMMAND ...`, or `python -m egma COMMAND ...`."""

import importlib
import signal
import sys
from difflib import get_close_matches

COMMANDS = {
    "demo": ("egma.programs.demo", "generate a corpus, train on it with and without gaze, evaluate, report"),
    "build": ("dataset_scripts.build", "convert a raw corpus, or your own recordings"),
    "train": ("egma.programs.train", "train on a converted corpus"),
    "evaluate": ("egma.programs.evaluate", "all protocols on a converted corpus, beside other models"),
    "reproduce": ("egma.programs.reproduce", "the paper's tables from your copies of the corpora"),
    "push": ("egma.programs.push", "put a trained model on the Hub, with its card"),
    "app": ("egma.programs.app", "a page that shows where each sentence looks"),
    "convert": ("egma.hub.convert", "other people's published weights to an EGMA model"),
    "export": ("egma.hub.export", "a model to ONNX"),
    "embed": ("egma.programs.embed", "embeddings of a corpus, as Parquet"),
}
USAGE = "usage: egma COMMAND ...\n\n" + "".join(f"  {name:10} {does}\n" for name, (_, does) in COMMANDS.items())
HINT = (
    "\n`egma COMMAND --help` says more of one; `accelerate launch -m egma.programs.train ...` trains on many processes"
)


def main(argv: list[str] | None = None) -> int:
    """Run the program of a command on the words behind it."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(USAGE + HINT)
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        guess = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(COMMANDS)}"
        print(f"error: egma has no command '{name}'; {guess}", file=sys.stderr)
        return 2
    module = COMMANDS[name][0]
    sys.argv[0] = f"egma {name}"  # what the program's own help calls it
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half done is put away
    try:
        run = importlib.import_module(module).main
    except ModuleNotFoundError as missing:
        print(f"error: egma {name} needs '{missing.name}': pip install 'egma[all]' brings it", file=sys.stderr)
        return 2
    return int(run(words))


if __name__ == "__main__":
    sys.exit(main())
