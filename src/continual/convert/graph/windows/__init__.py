"""Exact windows: at regular intervals, the module's own output for the last frames, computed from the values that windows have in
common."""
