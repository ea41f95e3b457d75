"""Exact windows: every so many frames the module's own output of the last ones, computed of what windows have in common."""
