"""EGMA for transformers. Importing this package registers the Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_egma import EgmaConfig, EgmaTextConfig, EgmaVisionConfig
from .image_processing_egma import EgmaImageProcessor
from .modeling_egma import (
    EgmaForImageClassification,
    EgmaModel,
    EgmaOutput,
    EgmaPreTrainedModel,
    EgmaTextModel,
    EgmaVisionModel,
)
from .pipeline_egma import STOCK_TASKS, TASK, EgmaGroundingPipeline
from .processing_egma import EgmaProcessor

__all__ = [
    "EgmaConfig",
    "EgmaForImageClassification",
    "EgmaGroundingPipeline",
    "EgmaImageProcessor",
    "EgmaModel",
    "EgmaOutput",
    "EgmaPreTrainedModel",
    "EgmaProcessor",
    "EgmaTextConfig",
    "EgmaTextModel",
    "EgmaVisionConfig",
    "EgmaVisionModel",
]

AutoConfig.register("egma", EgmaConfig, exist_ok=True)
AutoModel.register(EgmaConfig, EgmaModel, exist_ok=True)
AutoModelForZeroShotImageClassification.register(EgmaConfig, EgmaModel, exist_ok=True)
AutoModelForImageClassification.register(EgmaConfig, EgmaForImageClassification, exist_ok=True)
AutoProcessor.register(EgmaConfig, EgmaProcessor, exist_ok=True)
AutoImageProcessor.register(EgmaConfig, image_processor_classes={"pil": EgmaImageProcessor}, exist_ok=True)
AutoConfig.register("egma_vision_model", EgmaVisionConfig, exist_ok=True)
AutoConfig.register("egma_text_model", EgmaTextConfig, exist_ok=True)
AutoModel.register(EgmaVisionConfig, EgmaVisionModel, exist_ok=True)
AutoModel.register(EgmaTextConfig, EgmaTextModel, exist_ok=True)
AutoImageProcessor.register(EgmaVisionConfig, image_processor_classes={"pil": EgmaImageProcessor}, exist_ok=True)
if TASK not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=EgmaGroundingPipeline, pt_model=AutoModel, type="multimodal"
    )
for task, stock in STOCK_TASKS.items():
    PIPELINE_REGISTRY.supported_tasks[task]["impl"] = stock

# save_pretrained copies the code of these classes beside the weights, for trust_remote_code
EgmaConfig.register_for_auto_class()
EgmaVisionConfig.register_for_auto_class()
EgmaTextConfig.register_for_auto_class()
EgmaVisionModel.register_for_auto_class("AutoModel")
EgmaTextModel.register_for_auto_class("AutoModel")
EgmaModel.register_for_auto_class("AutoModel")
EgmaForImageClassification.register_for_auto_class("AutoModelForImageClassification")
EgmaProcessor.register_for_auto_class()
EgmaImageProcessor.register_for_auto_class()
