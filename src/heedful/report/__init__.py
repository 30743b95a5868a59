"""A run folder as one HTML file that needs nothing else: no network, no scripts from elsewhere, no torch."""

from heedful.report.page import write_report

__all__ = ["write_report"]
