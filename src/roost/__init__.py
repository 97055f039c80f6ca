"""Roost: bare Linux machines made clouds, thousands of clouds made one fleet."""

__version__ = "0.1.0"
