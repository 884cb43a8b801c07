"""What the WebSocket library logs: no details, no more than can be read, and nothing that a peer could forge."""

from __future__ import annotations

import logging

import pytest

from ibfast.common.logs import wire_logger


def test_details_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    logger = wire_logger("ibfast.test_details")
    with caplog.at_level(logging.DEBUG):
        logger.debug("Authorization: Bearer x")
        logging.getLogger("ibfast.test_details").debug("Authorization: Bearer x")
        logger.info("connection open")
    assert not logger.isEnabledFor(logging.DEBUG)
    assert [record.getMessage() for record in caplog.records] == ["connection open"]


def test_a_peer_s_text_is_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        wire_logger("ibfast.test_text").error("failed: %s", "\x1b[2J\nERROR forged" + "x" * (1 << 20))
    (record,) = caplog.records
    assert record.getMessage().startswith("failed: \\x1b[2J\\nERROR forgedxxx")
    assert len(record.getMessage()) < 3000


def test_a_flood_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    logger = wire_logger("ibfast.test_flood")
    assert wire_logger("ibfast.test_flood").logger is logger.logger
    with caplog.at_level(logging.INFO):
        for number in range(500):
            logger.error("opening handshake failed: %d", number)
        logger.info("connection open")
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 100 + ["INFO"]
