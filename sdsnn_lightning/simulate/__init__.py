"""Embedded stand-in data and converters."""
