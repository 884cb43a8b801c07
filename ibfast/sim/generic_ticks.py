"""The generic tick types that a level-1 request may name.

The rule of the file: what is known is accepted; which of them bring ticks is for the streams to say.
"""

from __future__ import annotations

from ibfast.errors import RequestError
from ibfast.wire.requests import MarketData

__all__ = ["parse_generic_ticks"]

_VALIDATION = 321
_NO_PRICES = "mdoff"
_GENERIC_TICKS = frozenset(
    {100, 101, 104, 105, 106, 107, 125, 162, 165, 166, 220, 221, 225, 232, 233, 236, 256, 258, 292, 293, 294, 295, 318}
    | {370, 375, 381, 384, 387, 388, 391, 407, 411, 428, 439, 456, 459, 460, 499, 506, 511, 512, 513, 514, 515, 516}
    | {517, 521, 545, 547, 576, 577, 578, 585, 586, 587, 588, 595, 614, 619, 623, 645, 646, 658, 662, 663, 665, 667}
)


def parse_generic_ticks(request: MarketData) -> frozenset[int]:
    """Return the generic tick types that a request asks for besides.

    Raises:
        RequestError: 321, for types that do not exist, and for any type in a snapshot.
    """
    wanted = [text.strip() for text in request.generic_ticks.split(",") if text.strip() not in ("", _NO_PRICES)]
    if wanted and request.snapshot:
        text = "Snapshot market data subscription is not applicable to generic ticks"
        raise RequestError(request.req_id, _VALIDATION, f"Error validating request:-'sim' : cause - {text}")
    unknown = [text for text in wanted if not text.isascii() or not text.isdigit() or int(text) not in _GENERIC_TICKS]
    if unknown:
        text = f"Incorrect generic tick list of {request.generic_ticks}"
        raise RequestError(request.req_id, _VALIDATION, f"Error validating request:-'sim' : cause - {text}")
    return frozenset(map(int, wanted))
