"""The rows, by package or by field. Each file lists its own in ``NETWORKS``."""
