"""The decoder against the official ones: the same random bytes, and no difference between the values.

Each official client runs in a process and environment of its own; `official_rows` says what its answers mean.
"""

from __future__ import annotations

import pytest

from tests.support.decoded import Decoded
from tests.support.official_rows import assert_rows, expected_rows, official_client
from tests.support.oracles import NEW_CLIENT, OLD_CLIENT
from tests.support.streams import (
    framed,
)
from tests.support.tick_streams import random_messages

BATCH = 5_000
CASES = [
    (OLD_CLIENT, 157, 40_000),
    *((NEW_CLIENT, server_version, 40_000) for server_version in (157, 163, 176, 200, 201, 206)),
    (NEW_CLIENT, 226, 100_000),
]


@pytest.mark.parametrize(("requirement", "server_version", "count"), CASES)
def test_no_difference(requirement: str, server_version: int, count: int) -> None:
    messages = list(random_messages(server_version, server_version, count, old_client=requirement == OLD_CLIENT))
    with official_client(requirement) as client:
        for start in range(0, count, BATCH):
            batch = messages[start : start + BATCH]
            decoded = Decoded(server_version).give([framed(*(message.payload for message in batch))])
            assert decoded.quarantine == []
            assert decoded.messages == []
            assert decoded.count == len(batch)
            assert_rows(decoded, expected_rows(client, server_version, batch))
