"""`getLogger`: the import path of continual-inference."""

from __future__ import annotations

import logging

__all__ = ["getLogger"]


class _Once(logging.Filter):
    """Lets a message pass once for each level."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = (record.levelno, record.getMessage())
        new = message not in self.seen
        self.seen.add(message)
        return new


def getLogger(name: str, log_once: bool = False) -> logging.Logger:
    """As ``logging.getLogger``.

    Args:
        name: of the logger.
        log_once: the logger drops messages that it has had before, from now on.

    Example:
        >>> getLogger("camera", log_once=True) is getLogger("camera")
        True
    """
    logger = logging.getLogger(name)
    if log_once and not any(isinstance(f, _Once) for f in logger.filters):
        logger.addFilter(_Once())
    return logger
