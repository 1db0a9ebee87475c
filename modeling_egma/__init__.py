"""EGMA for transformers. Importing this package registers the Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
)

from .configuration_egma import EgmaConfig
from .image_processing_egma import EgmaImageProcessor
from .modeling_egma import EgmaForImageClassification, EgmaModel, EgmaOutput, EgmaPreTrainedModel
from .processing_egma import EgmaProcessor

__all__ = [
    "EgmaConfig",
    "EgmaForImageClassification",
    "EgmaImageProcessor",
    "EgmaModel",
    "EgmaOutput",
    "EgmaPreTrainedModel",
    "EgmaProcessor",
]

AutoConfig.register("egma", EgmaConfig, exist_ok=True)
AutoModel.register(EgmaConfig, EgmaModel, exist_ok=True)
AutoModelForZeroShotImageClassification.register(EgmaConfig, EgmaModel, exist_ok=True)
AutoModelForImageClassification.register(EgmaConfig, EgmaForImageClassification, exist_ok=True)
AutoProcessor.register(EgmaConfig, EgmaProcessor, exist_ok=True)
AutoImageProcessor.register(EgmaConfig, image_processor_classes={"pil": EgmaImageProcessor}, exist_ok=True)

# save_pretrained copies the code of these classes beside the weights, for trust_remote_code
EgmaConfig.register_for_auto_class()
EgmaModel.register_for_auto_class("AutoModel")
EgmaForImageClassification.register_for_auto_class("AutoModelForImageClassification")
EgmaProcessor.register_for_auto_class()
EgmaImageProcessor.register_for_auto_class()
