"""What the library owes: networks that it refuses, though their streams or windows are well defined.

A row leaves this table when it converts, or when it turns out that it can't: then its ``expected`` and ``why`` say so.
"""

from __future__ import annotations

GAPS: dict[str, str] = {}
