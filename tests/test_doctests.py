"""The examples in the docstrings of every public loss and metric, and of the gaze map, give what they say."""

import doctest
import importlib
import inspect

import pytest
import torch

METRICS = "egma.evaluation.metrics"
EXAMPLES = {
    "modeling_egma.losses_egma": {
        *("multi_label_cross_entropy", "late_interaction_logits", "contrastive_alignment_loss", "gaze_alignment_loss"),
        *("cross_modality_mapping_loss", "similarity_maps"),
    },
    "modeling_egma.interaction_egma": {"late_interaction"},
    "modeling_egma.matching_egma": {"pooled_cosines"},
    "modeling_egma.labels_egma": {"classification_labels"},
    "modeling_egma.gaze_egma": {"gaze_matrix"},
    f"{METRICS}.saliency": {"nss", "auc_judd", "shuffled_auc", "cc", "sim", "kl"},
    f"{METRICS}.localisation": {"signed_cnr", "cnr", "miou", "pointing_credit"},
    f"{METRICS}.ranking": {"held_share", "precision_at_k", "recall_at_k"},
}
# parts of another function, which has the example
WITHOUT = {"both_aucs", "exact"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    with torch.no_grad():
        assert doctest.testmod(module).failed == 0
    found = {test.name.rpartition(".")[2] for test in doctest.DocTestFinder().find(module) if test.examples}
    assert found == EXAMPLES[name]


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith(METRICS)])
def test_every_public_metric_has_one(name: str) -> None:
    module = importlib.import_module(name)
    public = {
        attribute
        for attribute, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == name and not attribute.startswith("_")
    }
    assert public - WITHOUT == EXAMPLES[name]


def test_every_public_loss_has_one() -> None:
    losses = importlib.import_module("modeling_egma.losses_egma")
    public = {name for name, _ in inspect.getmembers(losses, inspect.isfunction) if name.endswith("_loss")}
    assert public <= EXAMPLES["modeling_egma.losses_egma"]
