"""Trainings with every layer, optimiser and loss, and predictions."""

from . import asv_classes

globals().update(asv_classes("layers", "optimizers", "losses", "prediction"))
