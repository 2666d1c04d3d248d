"""Falconet trains, evaluates, shrinks, explains and ships small classifiers of images and sequences.

The public names are imported when they are first used, so that `import falconet` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falconet.artifact import Artifact as Artifact
    from falconet.artifact import load_artifact as load_artifact
    from falconet.artifact import push as push
    from falconet.comparison import Comparison as Comparison
    from falconet.comparison import compare as compare
    from falconet.complexity import Complexity as Complexity
    from falconet.complexity import count_complexity as count_complexity
    from falconet.complexity import summarize as summarize
    from falconet.compression import Budget as Budget
    from falconet.compression import Compression as Compression
    from falconet.compression import compress as compress
    from falconet.data import Columns as Columns
    from falconet.data import DataConfig as DataConfig
    from falconet.data import Dataset as Dataset
    from falconet.data import load_dataset as load_dataset
    from falconet.data.augmentation import ImageAugmentation as ImageAugmentation
    from falconet.data.augmentation import SeriesAugmentation as SeriesAugmentation
    from falconet.data.augmentation import TextAugmentation as TextAugmentation
    from falconet.data.checks import DataReport as DataReport
    from falconet.data.checks import check_data as check_data
    from falconet.data.loader import Loader as Loader
    from falconet.data.preprocessing import Preprocess as Preprocess
    from falconet.demonstration import demonstrate as demonstrate
    from falconet.errors import FalconetError as FalconetError
    from falconet.evaluation import Costs as Costs
    from falconet.evaluation import Evaluation as Evaluation
    from falconet.evaluation import Robustness as Robustness
    from falconet.evaluation import evaluate as evaluate
    from falconet.evaluation import iterate_predictions as iterate_predictions
    from falconet.evaluation import measure_costs as measure_costs
    from falconet.evaluation import measure_robustness as measure_robustness
    from falconet.evaluation import predict as predict
    from falconet.explanation import Examination as Examination
    from falconet.explanation import Explanations as Explanations
    from falconet.explanation import attribute as attribute
    from falconet.explanation import examine as examine
    from falconet.explanation import explain as explain
    from falconet.exporters.exporting import Export as Export
    from falconet.exporters.exporting import export as export
    from falconet.labeling import Labeling as Labeling
    from falconet.labeling import label as label
    from falconet.latency import Latency as Latency
    from falconet.latency import measure_latency as measure_latency
    from falconet.models import MODELS as MODELS
    from falconet.models import create_model as create_model
    from falconet.models import list_models as list_models
    from falconet.models.efficientnet import scale_compound as scale_compound
    from falconet.models.pretrained import Pretrained as Pretrained
    from falconet.models.pretrained import load_pretrained as load_pretrained
    from falconet.predictions import Predictions as Predictions
    from falconet.reporting import update_report as update_report
    from falconet.runs import RunResult as RunResult
    from falconet.runs import train as train
    from falconet.spec import ImageSpec as ImageSpec
    from falconet.spec import InputSpec as InputSpec
    from falconet.spec import SeriesSpec as SeriesSpec
    from falconet.spec import TextSpec as TextSpec
    from falconet.training import Callback as Callback
    from falconet.training import TrainConfig as TrainConfig
    from falconet.training.diagnoses import Diagnosis as Diagnosis
    from falconet.training.diagnoses import LayerStats as LayerStats
    from falconet.training.diagnoses import diagnose as diagnose
    from falconet.training.layer_monitor import LayerMonitor as LayerMonitor
    from falconet.training.loggers import TensorBoardLogger as TensorBoardLogger
    from falconet.training.loop import FitResult as FitResult
    from falconet.training.loop import fit as fit

HOMES = {
    "MODELS": "falconet.models",
    "Loader": "falconet.data.loader",
    "Preprocess": "falconet.data.preprocessing",
    "Artifact": "falconet.artifact",
    "Budget": "falconet.compression",
    "Callback": "falconet.training",
    "Columns": "falconet.data",
    "Comparison": "falconet.comparison",
    "Complexity": "falconet.complexity",
    "Compression": "falconet.compression",
    "Costs": "falconet.evaluation",
    "DataConfig": "falconet.data",
    "DataReport": "falconet.data.checks",
    "Dataset": "falconet.data",
    "Diagnosis": "falconet.training.diagnoses",
    "Evaluation": "falconet.evaluation",
    "Examination": "falconet.explanation",
    "Explanations": "falconet.explanation",
    "Export": "falconet.exporters.exporting",
    "FalconetError": "falconet.errors",
    "FitResult": "falconet.training.loop",
    "ImageAugmentation": "falconet.data.augmentation",
    "ImageSpec": "falconet.spec",
    "InputSpec": "falconet.spec",
    "Labeling": "falconet.labeling",
    "Latency": "falconet.latency",
    "LayerMonitor": "falconet.training.layer_monitor",
    "LayerStats": "falconet.training.diagnoses",
    "Predictions": "falconet.predictions",
    "Pretrained": "falconet.models.pretrained",
    "Robustness": "falconet.evaluation",
    "RunResult": "falconet.runs",
    "SeriesAugmentation": "falconet.data.augmentation",
    "SeriesSpec": "falconet.spec",
    "TensorBoardLogger": "falconet.training.loggers",
    "TextAugmentation": "falconet.data.augmentation",
    "TextSpec": "falconet.spec",
    "TrainConfig": "falconet.training",
    "attribute": "falconet.explanation",
    "check_data": "falconet.data.checks",
    "compare": "falconet.comparison",
    "compress": "falconet.compression",
    "count_complexity": "falconet.complexity",
    "create_model": "falconet.models",
    "diagnose": "falconet.training.diagnoses",
    "demonstrate": "falconet.demonstration",
    "evaluate": "falconet.evaluation",
    "examine": "falconet.explanation",
    "explain": "falconet.explanation",
    "export": "falconet.exporters.exporting",
    "fit": "falconet.training.loop",
    "iterate_predictions": "falconet.evaluation",
    "label": "falconet.labeling",
    "list_models": "falconet.models",
    "load_artifact": "falconet.artifact",
    "load_dataset": "falconet.data",
    "load_pretrained": "falconet.models.pretrained",
    "measure_costs": "falconet.evaluation",
    "measure_latency": "falconet.latency",
    "measure_robustness": "falconet.evaluation",
    "predict": "falconet.evaluation",
    "push": "falconet.artifact",
    "scale_compound": "falconet.models.efficientnet",
    "summarize": "falconet.complexity",
    "train": "falconet.runs",
    "update_report": "falconet.reporting",
}

__all__ = sorted(HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        from falconet.renames import RENAMED_NAMES, note

        if name not in RENAMED_NAMES:
            raise AttributeError(f"module 'falconet' has no attribute {name!r}")
        note(f"falconet.{name} is now falconet.{RENAMED_NAMES[name]}")
        return __getattr__(RENAMED_NAMES[name])
    value = getattr(importlib.import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
