from __future__ import annotations

import pytest

from ibfast.records import Kind
from ibfast.wire.ids import Incoming, Outgoing, ServerVersion, TickType
from ibfast.wire.protobuf_ids import INCOMING_MESSAGES as INCOMING
from ibfast.wire.protobuf_ids import INCOMING_PROTOBUF_SINCE, OUTGOING_PROTOBUF_SINCE
from tests.support.oracles import NEW_CLIENT, Oracle

NEVER_PROTOBUF = {Outgoing.VERIFY_AND_AUTH_REQUEST, Outgoing.VERIFY_AND_AUTH_MESSAGE}
# The official client sends these as protobuf at once, without looking into its own table.
ONLY_PROTOBUF = {
    Outgoing.CANCEL_CONTRACT_DATA: 215,
    Outgoing.CANCEL_HISTORICAL_TICKS: 215,
    Outgoing.REQ_CONFIG: 219,
    Outgoing.UPDATE_CONFIG: 221,
}


@pytest.fixture(scope="module")
def official():
    with Oracle("oracle_client.py", NEW_CLIENT) as oracle:
        return oracle.ask(ask="numbers")


def test_ids_are_ibs(official):
    assert {item.name: item.value for item in Incoming} == official["incoming"]
    assert {item.name: item.value for item in Outgoing} == official["outgoing"]


def test_tick_types_are_ibs(official):
    assert {item.name: item.value for item in TickType} == official["tick_types"]


def test_outgoing_protobuf_versions_are_ibs(official):
    since = {Outgoing[name]: version for name, version in official["outgoing_protobuf_since"].items()}
    assert since | ONLY_PROTOBUF == OUTGOING_PROTOBUF_SINCE
    assert set(Outgoing) - set(OUTGOING_PROTOBUF_SINCE) == NEVER_PROTOBUF


def test_every_incoming_protobuf_message_has_a_version_and_a_table(official):
    messages = {Incoming[name]: message for name, message in official["incoming_protobuf"].items()}
    assert messages == INCOMING
    assert set(INCOMING_PROTOBUF_SINCE) == set(INCOMING)


def test_the_newest_version_is_the_official_clients(official):
    assert official["max_version"] == ServerVersion.MAX


def test_kinds_are_numbered_without_a_gap():
    assert [kind.value for kind in Kind] == list(range(1, len(Kind) + 1))
