"""What labels mean to EgmaForImageClassification: told from each batch, kept for none."""

import pytest
import torch
from torch.nn import functional as F

from modeling_egma import EgmaForImageClassification

SEVERAL = [[1, 0, 1], [0, 0, 1]]
PIXELS = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def classifier(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "egma")
    return EgmaForImageClassification.from_pretrained(tmp_path / "egma", num_labels=3)


@pytest.mark.parametrize("kind", [torch.long, torch.int32, torch.uint8, torch.bool, torch.float32, torch.float64])
def test_several_findings_an_image_are_scored_one_by_one_in_any_number_type(classifier, kind):
    output = classifier(PIXELS, labels=torch.tensor(SEVERAL).to(kind))
    expected = F.binary_cross_entropy_with_logits(output.logits, torch.tensor(SEVERAL).float())
    assert torch.allclose(output.loss, expected)


@pytest.mark.parametrize("kind", [torch.long, torch.int32, torch.uint8, torch.bool])
def test_class_indices_are_scored_against_each_other_in_any_whole_type(classifier, kind):
    output = classifier(PIXELS, labels=torch.tensor([1, 0]).to(kind))
    assert torch.allclose(output.loss, F.cross_entropy(output.logits, torch.tensor([1, 0])))


def test_what_labels_say_is_kept_neither_for_the_next_batch_nor_in_the_config(classifier, tmp_path):
    labels = [torch.tensor(SEVERAL), torch.tensor([0, 2])]
    first = [classifier(PIXELS, labels=one).loss for one in labels]
    again = [classifier(PIXELS, labels=one).loss for one in reversed(labels)]
    assert torch.equal(torch.stack(first), torch.stack(again[::-1]))
    classifier.save_pretrained(tmp_path)
    assert EgmaForImageClassification.from_pretrained(tmp_path).config.problem_type is None


def test_one_label_is_a_yes_or_no(classifier, tmp_path):
    model = EgmaForImageClassification.from_pretrained(tmp_path / "egma", num_labels=1)
    for labels in (torch.tensor([1, 0]), torch.tensor([[1.0], [0.0]]), torch.tensor([True, False])):
        output = model(PIXELS, labels=labels)
        expected = F.binary_cross_entropy_with_logits(output.logits, torch.tensor([[1.0], [0.0]]))
        assert torch.allclose(output.loss, expected) and output.loss > 0


def test_a_problem_type_of_the_config_is_followed(classifier):
    classifier.config.problem_type = "multi_label_classification"
    with pytest.raises(ValueError, match=r"labels of shape \(2,\), expected \(2, 3\)"):
        classifier(PIXELS, labels=torch.tensor([0, 1]))
    classifier.config.problem_type = "single_label_classification"
    with pytest.raises(ValueError, match="expected a whole number from 0 to 2"):
        classifier(PIXELS, labels=torch.tensor(SEVERAL))
    classifier.config.problem_type = "regression"
    output = classifier(PIXELS, labels=torch.full((2, 3), 7.0))
    assert torch.allclose(output.loss, F.mse_loss(output.logits, torch.full((2, 3), 7.0)))


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([[-1, 0, 1], [0, 0, 1]]),
        torch.tensor([[2.0, 0, 1], [0, 0, 1]]),
        torch.tensor([[float("nan"), 0, 1], [0, 0, 1]]),
        torch.tensor([[1, 0], [0, 1]]),
        torch.tensor([[0], [1]]),
        torch.tensor([0, 3]),
        torch.tensor([-1, 0]),
        torch.tensor([0.0, 2.0]),
        torch.tensor([0, 1, 2]),
        torch.tensor(1),
    ],
    ids=[
        "uncertain",
        "above 1",
        "nan",
        "two of three",
        "a column",
        "beyond",
        "below",
        "float index",
        "three",
        "scalar",
    ],
)
def test_labels_that_mean_nothing_are_refused(classifier, labels):
    with pytest.raises(ValueError, match=r"labels of .*expected"):
        classifier(PIXELS, labels=labels)


def test_an_image_without_a_class_is_left_out(classifier):
    output = classifier(PIXELS, labels=torch.tensor([-100, 2]))
    assert torch.allclose(output.loss, F.cross_entropy(output.logits[1:], torch.tensor([2])))
