"""What this package is: the import path of continual-inference."""

from .core.version import __version__

__all__ = ["__author__", "__author_email__", "__copyright__", "__docs__", "__homepage__", "__license__", "__version__"]

__author__ = "The continual authors"
__author_email__ = ""  # how to write to them: SECURITY.md and CONTRIBUTING.md of the repository
__license__ = "Apache-2.0"
__copyright__ = f"Copyright (c) 2026, {__author__}"
__homepage__ = ""  # none
__docs__ = "Run trained PyTorch networks on endless streams, one step at a time, exactly."
