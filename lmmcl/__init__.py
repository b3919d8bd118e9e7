"""Sweeps of sequential fine-tuning for large multimodal models, with held-out forgetting measured at every stage."""

__version__ = "0.1.0"
