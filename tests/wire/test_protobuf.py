from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibfast.errors import DecodeError
from ibfast.wire import protobuf, schema
from ibfast.wire.protobuf_ids import INCOMING_MESSAGES
from tests.support.oracles import NEW_CLIENT, Oracle, OracleError

SCALARS = {
    "double": st.floats(allow_nan=False),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "string": st.text(max_size=20),
    "map": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
}
# Of these the official parser keeps the last one.
ONE_OF = ("historicalTickLast", "historicalTickBidAsk", "historicalTickMidPoint")
MESSAGES = sorted(set(schema.MESSAGES) - {"MapEntry"})
FROM_GATEWAY = sorted(set(INCOMING_MESSAGES.values()))


@pytest.fixture(scope="module")
def official():
    with Oracle("oracle_client.py", NEW_CLIENT) as oracle:
        yield oracle


def fields_of(message):
    for item in schema.MESSAGES[message].split():
        name, number, kind = item.split(":")
        yield name, int(number), kind.rstrip("*"), kind.endswith("*")


@st.composite
def bodies(draw, message):
    """Draw the fields of a message as `decode` shows them: what is empty and repeated is absent."""
    values = {}
    for name, _, kind, repeated in fields_of(message):
        if draw(st.booleans()):
            continue
        value = SCALARS[kind] if kind in SCALARS else bodies(kind)
        values[name] = draw(st.lists(value, max_size=2) if repeated else value)
        if (repeated or kind == "map") and not values[name]:
            del values[name]
    kept = draw(st.sampled_from(ONE_OF))
    return {name: value for name, value in values.items() if name == kept or name not in ONE_OF}


messages_with_bodies = st.sampled_from(MESSAGES).flatmap(lambda name: st.tuples(st.just(name), bodies(name)))


def test_tables_are_the_official_ones(official):
    tables = official.ask(ask="tables")
    for message in MESSAGES:
        ours = [list(field) for field in fields_of(message)]
        theirs = tables[message]
        if message in schema._FROM_GATEWAY:
            assert ours == theirs, message
        else:
            assert ours == [field for field in theirs if field[2] != "map"], message


@given(messages_with_bodies)
def test_round_trip(message_and_values):
    message, values = message_and_values
    assert protobuf.decode(message, protobuf.encode(message, values)) == values


@settings(max_examples=200)
@given(messages_with_bodies)
def test_the_official_parser_reads_what_we_write(official, message_and_values):
    message, values = message_and_values
    parsed = official.ask(ask="parse", message=message, body=protobuf.encode(message, values).hex())
    assert parsed == values


@settings(max_examples=300)
@given(st.sampled_from(FROM_GATEWAY), st.binary(max_size=60))
def test_any_bytes_are_read_as_the_official_parser_reads_them_or_refused(official, message, body):
    try:
        values = protobuf.decode(message, body)
    except DecodeError:
        return
    try:
        assert official.ask(ask="parse", message=message, body=body.hex()) == _comparable(values)
    except OracleError:
        # google's parser refuses text that is not UTF-8; so does it a few things that do no harm here.
        return


@given(messages_with_bodies, st.data())
def test_damage_is_a_decode_error_or_other_values(message_and_values, data):
    message, values = message_and_values
    body = bytearray(protobuf.encode(message, values))
    for _ in range(data.draw(st.integers(1, 3))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for damaged in (bytes(body), bytes(body[:cut])):
        try:
            assert isinstance(protobuf.decode(message, damaged), dict)
        except DecodeError:
            continue


def test_minus_one_is_ten_bytes():
    assert protobuf.encode("ErrorMessage", {"id": -1}) == b"\x08" + b"\xff" * 9 + b"\x01"


def test_absent_is_absent_and_zero_is_not():
    assert protobuf.decode("TickPrice", b"") == {}
    assert protobuf.decode("TickPrice", b"\x19" + b"\0" * 8) == {"price": 0.0}
    assert protobuf.encode("TickPrice", {"price": None}) == b""


def test_unknown_fields_are_skipped():
    unknown = b"\xf8\x06\x05" + b"\xf9\x06" + b"x" * 8 + b"\xfa\x06\x02ab" + b"\xfd\x06abcd"
    assert protobuf.decode("NextValidId", unknown + b"\x08\x07") == {"orderId": 7}


def test_text_that_is_not_utf8_is_kept_as_far_as_it_goes():
    assert protobuf.decode("ErrorMessage", b"\x22\x03a\xffb") == {"errorMsg": "a\ufffdb"}


def test_packed_and_unpacked_numbers_are_read_alike():
    packed = b"\x3a\x10" + struct.pack("<2d", 1.5, 2.5)
    unpacked = b"\x39" + struct.pack("<d", 1.5) + b"\x39" + struct.pack("<d", 2.5)
    assert protobuf.decode("SecDefOptParameter", packed) == {"strikes": [1.5, 2.5]}
    assert protobuf.decode("SecDefOptParameter", unpacked) == {"strikes": [1.5, 2.5]}


def test_parts_of_a_message_that_comes_twice_are_merged():
    first, second = ({"contract": {"conId": 1}}, {"contract": {"symbol": "A"}})
    body = b"".join(protobuf.encode("ContractData", part) for part in (first, second))
    assert protobuf.decode("ContractData", body) == {"contract": {"conId": 1, "symbol": "A"}}


@pytest.mark.parametrize(
    "body",
    [
        b"\x08",  # no value
        b"\x08" + b"\xff" * 10,  # a varint that does not end
        b"\x08" + b"\x80" * 30,
        b"\x00\x00",  # field number 0
        b"\x12\x05ab",  # an inner length past the outer
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x19abc",  # a double of three bytes
        b"\x0b\x0c",  # groups
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",  # a tag past 32 bits
    ],
)
def test_malformed_is_a_decode_error(body):
    with pytest.raises(DecodeError):
        protobuf.decode("TickPrice", body)


def _comparable(values):
    # JSON has made NaN out of NaN, which is unlike itself.
    return {
        key: pytest.approx(value, nan_ok=True, abs=0, rel=0) if isinstance(value, float) else value
        for key, value in values.items()
    }
