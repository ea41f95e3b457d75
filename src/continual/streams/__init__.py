"""Streams in time: frames with numbers or time stamps, of which some are missing or late, through a network that wants each step."""
