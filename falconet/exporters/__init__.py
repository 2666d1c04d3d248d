"""Exporters: trained models as files for other runtimes, each checked to predict as the model does.

Nothing is imported here, so that an exported file can be run without torch.
"""
