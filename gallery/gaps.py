"""What the library owes: networks that it refuses, though their streams or windows are well defined.

A row leaves this table when it converts, or when it turns out that it can't: then its ``expected`` and ``why`` say so.
"""

from __future__ import annotations

_BY_REASON = {
    "An operation of it has no rule.": ("sequences/Transformer-XL shift",),
    "A constant that is expanded to the length of the clip is not followed.": ("braindecode/MetaNeuromotorHand",),
    "A number that it reads out of a tensor of sizes is not followed.": ("torchaudio/Emformer",),
}
GAPS: dict[str, str] = {name: reason for reason, names in _BY_REASON.items() for name in names}
