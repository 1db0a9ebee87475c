"""EGMA under transformers' own shared tests; `test_transformers_mixins.py` runs this file among them.

Every switched-off test says why; without a reason here, a skip comes from the shared tests themselves.
"""

import unittest

import torch
from transformers import BertConfig, BertTokenizer, SwinConfig

from modeling_egma import (
    EgmaConfig,
    EgmaForImageClassification,
    EgmaImageProcessor,
    EgmaModel,
    EgmaProcessor,
    EgmaTextConfig,
    EgmaTextModel,
    EgmaVisionConfig,
    EgmaVisionModel,
)

from .test_configuration_common import ConfigTester
from .test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from .test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor
from .test_processing_common import ProcessorTesterMixin

# the shared tests compare a saved folder with the object; the code that travels with it is tested in test_loading_egma
for travelling in (
    *(EgmaConfig, EgmaModel, EgmaForImageClassification, EgmaProcessor, EgmaImageProcessor),
    *(EgmaVisionConfig, EgmaVisionModel, EgmaTextConfig, EgmaTextModel),
):
    travelling._auto_class = None

IMAGE_SIZE = 32


class TextTester:
    batch_size, seq_length, is_training = 3, 7, True
    hidden_size, num_hidden_layers, num_attention_heads = 16, 2, 2

    def get_config(self):
        return BertConfig(
            vocab_size=99,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=32,
            max_position_embeddings=32,
        )

    def prepare_config_and_inputs_for_common(self):
        input_ids = ids_tensor([self.batch_size, self.seq_length], 99)
        return self.get_config(), {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


class VisionTester:
    batch_size, is_training = 3, True
    image_size, patch_size, num_channels = IMAGE_SIZE, 4, 3
    hidden_size, num_hidden_layers, num_attention_heads = 16, 2, 2

    def get_config(self):
        return SwinConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            embed_dim=8,
            depths=[1, 1],
            num_heads=[1, 2],
            window_size=2,
            mlp_ratio=2.0,
        )

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.num_channels, self.image_size, self.image_size]
        return self.get_config(), {"pixel_values": floats_tensor(shape)}


class EgmaTester:
    batch_size, seq_length, is_training = 3, 7, True
    num_hidden_layers = 2

    def __init__(self, parent):
        self.parent = parent
        self.text_model_tester, self.vision_model_tester = TextTester(), VisionTester()

    def get_config(self):
        return EgmaConfig(
            vision_config=self.vision_model_tester.get_config(),
            text_config=self.text_model_tester.get_config(),
            projection_dim=12,
        )

    def prepare_config_and_inputs_for_common(self):
        _, text = self.text_model_tester.prepare_config_and_inputs_for_common()
        _, vision = self.vision_model_tester.prepare_config_and_inputs_for_common()
        return self.get_config(), text | vision | {"return_loss": True}


class EgmaModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (EgmaModel,)
    test_resize_embeddings = False
    has_attentions = False
    _is_composite = True
    # Swin's `embed_dim` is the width of its first stage, not of its output
    skip_test_image_features_output_shape = True

    def setUp(self):
        self.model_tester = EgmaTester(self)
        self.config_tester = ConfigTester(
            self, config_class=EgmaConfig, has_text_modality=False, common_properties=["projection_dim", "text_layers"]
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip("a dual encoder has two stacks of hidden states: they come with get_image/text_features")
    def test_hidden_states_output(self):
        pass

    @unittest.skip("a dual encoder has two stacks of hidden states: they come with get_image/text_features")
    def test_retain_grad_hidden_states_attentions(self):
        pass


class EgmaImageClassificationTester(VisionTester):
    def __init__(self, parent):
        self.parent = parent

    def prepare_config_and_inputs_for_common(self):
        config = EgmaConfig(
            vision_config=self.get_config(), text_config=TextTester().get_config(), projection_dim=12, num_labels=3
        )
        return config, super().prepare_config_and_inputs_for_common()[1]


class EgmaForImageClassificationTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (EgmaForImageClassification,)
    test_resize_embeddings = False
    # Swin halves its grid from stage to stage: one shape of attention or hidden state does not describe it
    has_attentions = False
    _is_composite = True

    def setUp(self):
        self.model_tester = EgmaImageClassificationTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Labels as for the library's own image classifiers, which the shared test knows by name."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels:
            inputs["labels"] = torch.zeros(self.model_tester.batch_size, dtype=torch.long)
        return inputs

    @unittest.skip("images enter through a convolution, not through an embedding table")
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip("the width of Swin's hidden states grows from stage to stage; the test wants one width")
    def test_hidden_states_output(self):
        pass


class WithoutLoss:
    """Features have no loss, so nothing to train on."""

    @unittest.skip("features have no loss")
    def test_training(self):
        pass

    @unittest.skip("features have no loss")
    def test_training_gradient_checkpointing(self):
        pass

    @unittest.skip("features have no loss")
    def test_training_gradient_checkpointing_use_reentrant_false(self):
        pass

    @unittest.skip("features have no loss")
    def test_training_gradient_checkpointing_use_reentrant_true(self):
        pass


class EgmaVisionModelTester(VisionTester):
    def __init__(self, parent):
        self.parent = parent

    def prepare_config_and_inputs_for_common(self):
        towers = {"vision_config": self.get_config(), "text_config": TextTester().get_config()}
        return EgmaVisionConfig(**towers, projection_dim=12), super().prepare_config_and_inputs_for_common()[1]


class EgmaVisionModelTest(WithoutLoss, ModelTesterMixin, unittest.TestCase):
    all_model_classes = (EgmaVisionModel,)
    test_resize_embeddings = False
    has_attentions = False
    _is_composite = True

    def setUp(self):
        self.model_tester = EgmaVisionModelTester(self)

    @unittest.skip("images enter through a convolution, not through an embedding table")
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip("the width of Swin's hidden states grows from stage to stage; the test wants one width")
    def test_hidden_states_output(self):
        pass


class EgmaTextModelTester(TextTester):
    def __init__(self, parent):
        self.parent = parent

    def prepare_config_and_inputs_for_common(self):
        towers = {"vision_config": VisionTester().get_config(), "text_config": self.get_config()}
        return EgmaTextConfig(**towers, projection_dim=12), super().prepare_config_and_inputs_for_common()[1]


class EgmaTextModelTest(WithoutLoss, ModelTesterMixin, unittest.TestCase):
    all_model_classes = (EgmaTextModel,)
    test_resize_embeddings = False
    has_attentions = False
    _is_composite = True

    def setUp(self):
        self.model_tester = EgmaTextModelTester(self)

    @unittest.skip("the last layers are averaged, so all hidden states are made and given back")
    def test_can_capture_specific_layers_hidden_states(self):
        pass


class EgmaImageProcessorTester(ImageProcessingTester):
    def __init__(self, parent, **kwargs):
        kwargs.setdefault("size", {"height": 18, "width": 18})
        super().__init__(parent, **kwargs)

    def _get_image_processing_classes(self):
        return {"pil": EgmaImageProcessor}


class EgmaImageProcessorTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = EgmaImageProcessorTester

    @unittest.skip("torchvision is no dependency: the processor works on PIL and NumPy")
    def test_new_models_require_torchvision_backend(self):
        pass


class EgmaProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = EgmaProcessor

    @classmethod
    def _setup_image_processor(cls):
        return EgmaImageProcessor(size={"height": 32, "width": 32})

    @classmethod
    def _setup_tokenizer(cls):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lower", "newer", "older", "upper", "longer", "string"]
        return BertTokenizer(vocab={word: index for index, word in enumerate(words)}, model_max_length=200)

    def test_model_input_names(self):
        """Unlike the shared test, asks for everything: reports with gaze."""
        batch = self.get_processor()(
            images=self.prepare_images_inputs(),
            text=[["lower", "newer"]],
            gaze=[{"x": [0.5], "y": [0.5], "start": [0], "duration": [1]}],
            spans=[[(0, 1), None]],
        )
        self.assertSetEqual(set(batch), set(self.get_processor().model_input_names))
