"""Exporters: trained models as files for other runtimes, each proven to answer as the model does.

Nothing is imported here, so that an exported file can be asked without torch.
"""
