"""Two processes against one with the joined batch: loss, terms and gradients."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from egma.training.cached import cached_step
from egma.training.devices import part_processes
from egma.training.step import TrainingModule, whole_step

from .batches import gradients, joined, largest_difference, make_batch, small_model

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}
TERMS = {"contrastive": (1, 0, 0), "gaze": (0, 1, 0), "mapping": (0, 0, 1), "all": (1, 1, 1)}
# sentence counts, gaze and token length of each process
CASES = {
    "ragged": [([3, 1, 4], True, 6), ([2, 2, 1], True, 9)],
    "other numbers of images": [([2, 3], True, 6), ([1, 2, 2, 3], True, 6)],
    "no gaze on the second": [([3, 1, 4], True, 6), ([2, 5, 1], False, 6)],
    "second says nothing of gaze": [([3, 1, 4], True, 6), ([2, 5, 1], None, 6)],
    "no gaze at all": [([3, 1], False, 6), ([2, 5], None, 6)],
    "no sentence on the first": [([0, 0, 0], False, 1), ([2, 0, 3], True, 6)],
    "no sentence at all": [([0, 0], False, 1), ([0, 0], False, 1)],
    "one sentence a report": [([1, 1], True, 6), ([1, 1], True, 6)],
}
RUNS = [(case, term, dtype) for case in CASES for term in TERMS for dtype in TOLERANCE]
RUNS = [run for run in RUNS if run[1] == "all" or run[2] == torch.float64]
CACHED = ("ragged", "no sentence on the first")


def batches_of(case: str, dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    return [
        make_batch(counts, rank, dtype, gaze, length) | {"report_ids": torch.tensor([7, *range(1, len(counts))])}
        for rank, (counts, gaze, length) in enumerate(CASES[case])
    ]


def outcome(model: torch.nn.Module, loss: torch.Tensor, terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    values = {f"term {name}": value.detach().reshape(1) for name, value in terms.items()}
    return {"loss": loss.detach().reshape(1), **values, **gradients(model)}


def name_of(case: str, term: str, dtype: torch.dtype, micro: int | None) -> str:
    return f"{case}-{term}-{dtype}-{micro}".replace(" ", "_")


def runs() -> list[tuple[str, str, torch.dtype, int | None]]:
    cached = [(case, "all", dtype, 2) for case in CACHED for dtype in TOLERANCE]
    return [(*run, None) for run in RUNS] + cached


def train_in_process(rank: int, folder: str) -> None:
    """Every case on this rank; the first writes what it got."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    accelerator = Accelerator()
    assert accelerator.num_processes == 2
    for case, term, dtype, micro in runs():
        model = small_model(dtype, TERMS[term]).eval()
        module = accelerator.prepare(TrainingModule(model))
        batch = batches_of(case, dtype)[rank]
        if micro is None:
            loss, terms = whole_step(accelerator, module, [batch])
        else:
            loss, terms = cached_step(accelerator, module, batch, micro)
        if rank == 0:
            save_file(outcome(model, loss, terms), Path(folder) / f"{name_of(case, term, dtype, micro)}.safetensors")
    del module
    part_processes(accelerator)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two_processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        patch.setenv("MASTER_PORT", str(free_port()))
        patch.setenv("OMP_NUM_THREADS", "1")
        mp.spawn(train_in_process, (str(folder),), nprocs=2)
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(("case", "term", "dtype", "micro"), runs())
def test_two_processes_equal_one_with_the_joined_batch(
    two_processes: Path, record_difference, case: str, term: str, dtype: torch.dtype, micro: int | None
) -> None:
    model = small_model(dtype, TERMS[term]).eval()
    loss, terms = TrainingModule(model)(joined(batches_of(case, dtype)))
    loss.backward()
    got = load_file(two_processes / f"{name_of(case, term, dtype, micro)}.safetensors")
    expected = outcome(model, loss, terms)
    values = {name for name in expected if name == "loss" or name.startswith("term ")}
    for kind, names in (("values", values), ("gradients", expected.keys() - values)):
        difference = largest_difference({n: got[n] for n in names}, {n: expected[n] for n in names})
        record_difference(f"{kind} of two processes to one, {str(dtype).split('.')[1]}", difference)
        assert difference < TOLERANCE[dtype]
    if term == "contrastive" and case == "ragged":
        assert loss > 0.1


def test_plain_forward_gives_the_same_loss_as_the_training_module() -> None:
    model, batch = small_model(torch.float64).eval(), make_batch([3, 0, 2], 1, torch.float64)
    loss, terms = TrainingModule(model)(batch)
    output = model(**batch)
    assert torch.equal(loss, output.loss)
    assert all(torch.equal(terms[name], value) for name, value in output.loss_components.items())
