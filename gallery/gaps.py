"""What the library owes: networks that it refuses, though their streams or windows are well defined.

A row leaves this table when it converts, or when it turns out that it can't: then its ``expected`` and ``why`` say so.
"""

from __future__ import annotations

_BY_REASON = {
    "Scores of a query and a table of relative positions, which a view shifts against each other, are not followed.": (
        "sequences/Transformer-XL shift",
    ),
    "A mask with a row for each window, which is repeated for the rows of the batch and for heads, is not followed.": (
        "braindecode/MetaNeuromotorHand",
    ),
    "The frames ahead of each segment, copied in front of the clip by one slice for each, are not followed.": (
        "torchaudio/Emformer",
    ),
}
GAPS: dict[str, str] = {name: reason for reason, names in _BY_REASON.items() for name in names}
