"""Loops over the frames of a clip, as layers that carry a state."""
