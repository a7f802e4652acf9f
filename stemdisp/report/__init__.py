"""The report: figures, tables and one page that can be read on its own; computes nothing."""

from stemdisp.report.page import repr_html, write
from stemdisp.report.wording import sentences, text_summary

__all__ = ["repr_html", "sentences", "text_summary", "write"]
