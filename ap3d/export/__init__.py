"""Exports: a posed avatar as files that other programs open; one module a format, each with its reader.

This module and the table of formats load without torch, so that the command line can name them.
"""

from ap3d.export.formats import FORMATS, ExportFormat, export_format

__all__ = ["FORMATS", "ExportFormat", "export_format"]
