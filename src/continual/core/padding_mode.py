"""`PaddingMode`."""

from enum import Enum


class PaddingMode(str, Enum):  # noqa: UP042 (a StrEnum prints otherwise)
    """What stands in the place of frames before the first and after the last one."""

    REPLICATE = "replicate"
    ZEROS = "zeros"
    NEG_INF = "neg_inf"
