"""Pages and figures made from a run's saved files; nothing here trains or evaluates."""

from layerwise.report.page import report
from layerwise.report.run import summary

__all__ = ["report", "summary"]
