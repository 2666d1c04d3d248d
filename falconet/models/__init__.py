"""Architectures: one file a family, one literal table, one function that builds any of them."""

from falconet.models.registry import create_model, find_model, list_models, models_for
from falconet.models.table import MODELS, ModelEntry

__all__ = ["MODELS", "ModelEntry", "create_model", "find_model", "list_models", "models_for"]
