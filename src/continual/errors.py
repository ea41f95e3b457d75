"""What can go wrong, as types: every error names the module, the numbers that disagree and what to do."""

from collections.abc import Sequence


class ContinualError(Exception):
    """Base class of all errors raised by this library."""


class NotStreamable(ContinualError, ValueError):
    """A module can't be run step by step exactly (or not with these options).

    Attributes:
        refusals: what was refused, one by one (:class:`~continual.core.op_rows.Refusal`), where a whole module was looked at.
        rows: the operations that could be followed (:class:`~continual.core.op_rows.Row`).
    """

    def __init__(self, message: str, refusals: tuple[object, ...] = (), rows: tuple[object, ...] = ()):
        super().__init__(message)
        self.refusals, self.rows = refusals, rows


class ShapeMismatch(ContinualError, ValueError):
    """An input has another rank, size, dtype or device than the module or its running stream."""


class WrongMapping(ContinualError, ValueError, AssertionError):
    """A mapping says for something else than streams where they go. An ``AssertionError`` too, as in continual-inference."""


class StateMismatch(ContinualError, ValueError):
    """A state belongs to another network, or a file does not hold a state that can be used."""


class StreamInUse(ContinualError, RuntimeError):
    """Two calls meet on one stream, in two threads or one inside the other. A stream is for one caller at a time."""


class MissingFrames(ContinualError, ValueError):
    """Frames of a stream are missing, and it was not said what stands for them."""


class StreamMismatch(ContinualError, AssertionError):
    """Streaming differs from the clip computation. ``report`` holds every check that was made."""

    def __init__(self, message: str, report: object = None):
        super().__init__(message)
        self.report = report


class CapacityError(ContinualError, RuntimeError):
    """More streams were opened than there is room for."""


class ExportError(ContinualError, RuntimeError):
    """A network can't be written in the format that was asked for."""


class ArtefactMismatch(ContinualError, ValueError):
    """A file is not an exported network: damaged, written by another tool, or of another version of the format."""


class CheckpointMismatch(ContinualError, ValueError):
    """A checkpoint's weights are not those of the network.

    Attributes:
        missing: names that the network has and the checkpoint has not.
        extra: names that only the checkpoint has.
        misshaped: names with the shapes that differ.
    """

    def __init__(self, message: str, missing: Sequence[str] = (), extra: Sequence[str] = (), misshaped: Sequence[str] = ()):
        super().__init__(message)
        self.missing, self.extra, self.misshaped = list(missing), list(extra), list(misshaped)
