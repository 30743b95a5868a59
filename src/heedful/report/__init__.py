"""A run folder as one HTML file that needs nothing else: no network, no scripts from elsewhere, no torch."""

from heedful.report.page import write_report
from heedful.report.sweep import write_sweep_report

__all__ = ["write_report", "write_sweep_report"]
