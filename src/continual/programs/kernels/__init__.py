"""How each kind of module runs in step programs. Importing this registers all of them."""

from . import attention, containers, graph, recurrent, resampling, windows

__all__ = ["attention", "containers", "graph", "recurrent", "resampling", "windows"]
