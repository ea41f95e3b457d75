"""The gallery: networks that people own, each converted, checked against its module and timed. ``python -m gallery --help``."""
