"""Benchmarks: ``python -m benchmarks`` prints a table of ratios. Nothing here is part of the installed package."""
