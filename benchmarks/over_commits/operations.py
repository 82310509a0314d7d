"""Every operation of a backend."""

from . import asv_classes

globals().update(asv_classes("operations"))
