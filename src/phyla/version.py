"""The version of phyla."""

__version__ = "0.1.0"
