"""Several processes, each doing its share, against one with the joined batch: loss, terms, gradients, costs."""

import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from egma.training.cached import cached_step
from egma.training.devices import part_processes
from egma.training.gather import AllProcesses, Features, all_processes
from egma.training.step import TrainingModule, whole_step
from modeling_egma import EgmaModel
from modeling_egma import losses_egma as losses

from .batches import gradients, joined, largest_difference, make_batch, small_model

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
WORLDS = (1, 2, 3, 4)
TERMS = {"contrastive": (1, 0, 0), "gaze": (0, 1, 0), "mapping": (0, 0, 1), "all": (1, 1, 1)}
# the same names with this before them: the terms beyond the paper
BEYOND = "beyond, "
KINDS = {"interaction": "cabs", "gaze_target": "soft", "mapping": "batch"}
# sentence counts, gaze and token length of each process; fewer processes take the first ones
CASES = {
    "ragged": [([3, 1, 4], True, 6), ([2, 2, 1], True, 9), ([1, 2], True, 6), ([5, 1, 1, 2], True, 7)],
    "one image on the third": [([2, 3], True, 6), ([1, 2, 2, 3], True, 6), ([2], True, 6), ([1, 1], True, 6)],
    "no gaze on the second": [([3, 1, 4], True, 6), ([2, 5, 1], False, 6), ([2, 1], None, 6), ([2, 2], True, 6)],
    "no gaze at all": [([3, 1], False, 6), ([2, 5], None, 6), ([2], None, 6), ([1, 1], False, 6)],
    "no sentence on the first": [([0, 0, 0], False, 1), ([2, 0, 3], True, 6), ([0], False, 1), ([1, 2], True, 6)],
    "no sentence at all": [([0, 0], False, 1)] * 4,
    "one sentence a report": [([1, 1], True, 6)] * 4,
    "nothing known of texts": [([3, 1, 4], True, 6), ([2, 2, 1], True, 9), ([1, 2], True, 6), ([5, 1], True, 7)],
}
CACHED = ("ragged", "no sentence on the first")
# images and patches of a process, dimensions, sentences a report
SHARE = {"images": 8, "patches": 49, "width": 64, "sentences": 3}


def batches_of(case: str, dtype: torch.dtype, world: int) -> list[dict[str, torch.Tensor]]:
    """The first report of every process is the same text, and so are some sentences of a report."""
    batches = []
    for rank, (counts, gaze, length) in enumerate(CASES[case][:world]):
        batch = make_batch(counts, rank, dtype, gaze, length)
        if case != "nothing known of texts":
            batch["report_ids"] = torch.tensor([7, *range(10 * rank, 10 * rank + len(counts) - 1)])
            batch["sentence_ids"] = torch.arange(sum(counts)) % 3
        batches.append(batch)
    return batches


def outcome(model: torch.nn.Module, loss: torch.Tensor, terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    values = {f"term {name}": value.detach().reshape(1) for name, value in terms.items()}
    return {"loss": loss.detach().reshape(1), **values, **gradients(model)}


def model_of(term: str, dtype: torch.dtype) -> EgmaModel:
    kinds = KINDS if term.startswith(BEYOND) else {}
    return small_model(dtype, TERMS[term.removeprefix(BEYOND)], **kinds).eval()


def name_of(case: str, term: str, dtype: torch.dtype, micro: int | None) -> str:
    return f"{case}-{term}-{dtype}-{micro}".replace(" ", "_")


def runs(world: int) -> list[tuple[str, str, torch.dtype, int | None]]:
    """Each term alone on two processes; all together, and with cached gradients, on any number."""
    alone = [(case, term, torch.float64, None) for case in CASES for term in TERMS if world == 2 and term != "all"]
    cached = [(case, "all", dtype, 2) for case in CACHED for dtype in TOLERANCE]
    paper = alone + [(case, "all", dtype, None) for case in CASES for dtype in TOLERANCE] + cached
    return paper + [(case, BEYOND + term, dtype, micro) for case, term, dtype, micro in paper]


def train_in_process(rank: int, folder: str, world: int) -> None:
    """Every case on this rank; the first writes what it got."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    accelerator = Accelerator()
    assert accelerator.num_processes == world
    for case, term, dtype, micro in runs(world):
        model = model_of(term, dtype)
        module = accelerator.prepare(TrainingModule(model))
        batch = batches_of(case, dtype, world)[rank]
        if micro is None:
            loss, terms = whole_step(accelerator, module, [batch])
        else:
            loss, terms = cached_step(accelerator, module, batch, micro)
        if rank == 0:
            save_file(outcome(model, loss, terms), Path(folder) / f"{name_of(case, term, dtype, micro)}.safetensors")
    if world > 1:
        for term in ("all", f"{BEYOND}all"):
            save_file(cost_of_a_share(term, all_processes(), rank), Path(folder) / f"cost-{term}-{rank}.safetensors")
    del module
    part_processes(accelerator)


def spawn(function: Callable[..., None], folder: Path, world: int) -> Path:
    """Run `function(rank, folder, world)` in `world` processes that find each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        patch.setenv("MASTER_PORT", str(free_port()))
        patch.setenv("OMP_NUM_THREADS", "1")
        mp.spawn(function, (str(folder), world), nprocs=world)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """What so many processes wrote; they are started once."""
    return functools.cache(lambda world: spawn(train_in_process, tmp_path_factory.mktemp(f"of_{world}"), world))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("world", "case", "term", "dtype", "micro"), [(world, *run) for world in WORLDS for run in runs(world)]
)
def test_every_number_of_processes_equals_one_with_the_joined_batch(
    trained: Callable[[int], Path],
    record_difference,
    world: int,
    case: str,
    term: str,
    dtype: torch.dtype,
    micro: int | None,
) -> None:
    model = model_of(term, dtype)
    loss, terms = TrainingModule(model)(joined(batches_of(case, dtype, world)))
    loss.backward()
    got = load_file(trained(world) / f"{name_of(case, term, dtype, micro)}.safetensors")
    expected = outcome(model, loss, terms)
    values = {name for name in expected if name == "loss" or name.startswith("term ")}
    for kind, names in (("values", values), ("gradients", expected.keys() - values)):
        difference = largest_difference({n: got[n] for n in names}, {n: expected[n] for n in names})
        record_difference(f"{kind} of {world} process(es) to one, {str(dtype).split('.')[1]}", difference)
        assert difference < TOLERANCE[dtype]
    if term == "contrastive" and case == "ragged":
        assert loss > 0.1


# --- what a share costs


def share_of(rank: int) -> Features:
    """Features of one process, all alike in shape."""
    generator = torch.Generator().manual_seed(rank)
    images, sentences = SHARE["images"], SHARE["images"] * SHARE["sentences"]
    patches = F.normalize(torch.randn(images, SHARE["patches"], SHARE["width"], generator=generator), dim=-1)
    return Features(
        patches.requires_grad_(),
        F.normalize(torch.randn(sentences, SHARE["width"], generator=generator), dim=-1).requires_grad_(),
        torch.arange(images).repeat_interleave(SHARE["sentences"]),
        torch.rand(sentences, SHARE["patches"], generator=generator),
        torch.ones(images, dtype=torch.bool),
        torch.arange(images) + images * rank,
        torch.arange(sentences),
    )


def joined_features(parts: list[Features]) -> Features:
    """Batches one after the other; rows of images are counted on."""
    images = 0
    for number, part in enumerate(parts):
        parts[number] = part._replace(sentence_to_image=part.sentence_to_image + images)
        images += len(part.patches)
    return Features(*(None if one[0] is None else torch.cat(one) for one in zip(*parts, strict=True)))


def cost_of_a_share(term: str, processes: losses.OneProcess, *ranks: int) -> dict[str, torch.Tensor]:
    """Operations, elements of the largest tensor that is kept, and bytes that each collective is handed."""
    features, model, sent = joined_features([share_of(rank) for rank in ranks]), model_of(term, torch.float32), {}
    largest = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, tensor.untyped_storage().nbytes() // tensor.element_size())
        return tensor

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(dist, name)

        def collective(first: Any, second: Any = None, *rest: Any) -> Any:
            handed = {"all_gather": [second], "reduce_scatter": second, "all_reduce": [first]}[name]
            sent.setdefault(name, []).append(sum(one.nbytes for one in handed))
            return original(first, *([] if second is None else [second]), *rest)

        return collective

    with pytest.MonkeyPatch.context() as patch, FlopCounterMode(display=False) as counter:
        for name in ("all_gather", "all_reduce", "reduce_scatter"):
            patch.setattr(dist, name, counted(name))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = model.objective(*features, join=processes)
        loss.backward()
    sums = {"flop": torch.tensor(counter.get_total_flops()), "largest": torch.tensor(largest)}
    return sums | {name: torch.tensor(sizes) for name, sizes in sent.items()}


@pytest.mark.parametrize("term", ["all", f"{BEYOND}all"])
@pytest.mark.parametrize("world", WORLDS)
def test_a_process_does_its_share_sends_sentences_and_keeps_its_inputs(
    trained: Callable[[int], Path], world: int, term: str
) -> None:
    whole = cost_of_a_share(term, losses.ONE_PROCESS, *range(world))
    assert whole.keys() == {"flop", "largest"}
    if world == 1:
        return
    images, sentences, width = SHARE["images"], SHARE["images"] * SHARE["sentences"], SHARE["width"]
    for rank in range(world):
        cost = {
            name: value.tolist()
            for name, value in load_file(trained(world) / f"cost-{term}-{rank}.safetensors").items()
        }
        assert cost["flop"] == pytest.approx(int(whole["flop"]) / world, rel=0.1)
        assert cost["reduce_scatter"] == [4 * world * sentences * width]
        if term != "all":
            # no patches of others; cosines of own images with all sentences; the text of every sentence
            assert cost["largest"] <= max(
                images * SHARE["patches"] * world * sentences, images * SHARE["patches"] * width
            )
            assert cost["all_gather"] == [2 * 8, 8 * sentences, 8 * sentences, 4 * sentences * width]
            # of contrastive and mapping, which sentence has a positive, and columns, twice; sums and counts; the scale
            assert cost["all_reduce"] == [*[4 * world * sentences] * 6, 4 * 10, 4]
            continue
        # its own patches
        assert cost["largest"] == images * SHARE["patches"] * width
        # sizes; the report of every sentence; the text of every report; sentences
        assert cost["all_gather"] == [2 * 8, 8 * sentences, 8 * images, 4 * sentences * width]
        # columns, twice; sums and counts of three terms; back, the scale
        assert cost["all_reduce"] == [4 * world * images, 4 * world * images, 4 * 6, 4]


def test_plain_forward_gives_the_same_loss_as_the_training_module() -> None:
    model, batch = small_model(torch.float64).eval(), make_batch([3, 0, 2], 1, torch.float64)
    loss, terms = TrainingModule(model)(batch)
    output = model(**batch)
    assert torch.equal(loss, output.loss)
    assert all(torch.equal(terms[name], value) for name, value in output.loss_components.items())


def test_one_process_joins_nothing() -> None:
    assert all_processes() is losses.ONE_PROCESS and issubclass(AllProcesses, losses.OneProcess)
