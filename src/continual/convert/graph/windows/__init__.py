"""Exact windows: at intervals, the module's own output for the last frames, computed from values that windows share."""
