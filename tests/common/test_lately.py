"""What was used lately, within a bound of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ibfast.common.lately import ENTRY_WEIGHT, Lately, weight_of
from ibfast.contracts import Contract, ContractDetails


def test_what_was_not_used_for_longest_goes() -> None:
    kept = Lately[int, str](3 * ENTRY_WEIGHT + 30)
    for key in range(3):
        kept[key] = "x" * 10
    assert kept.get(0) == "x" * 10
    kept[3] = "y"
    assert [kept.get(key) for key in range(4)] == ["x" * 10, None, "x" * 10, "y"]
    kept[2] = "z" * 9
    assert (len(kept), kept.weight) == (3, 3 * ENTRY_WEIGHT + 20)


def test_what_is_heavier_than_all_may_be_is_not_kept() -> None:
    kept = Lately[int, str](3 * ENTRY_WEIGHT)
    kept[0] = "x"
    kept[1] = "y"
    kept[1] = "x" * 10_000
    assert (len(kept), kept.weight, kept.get(0), kept.get(1)) == (1, ENTRY_WEIGHT + 1, "x", None)


def test_a_contract_weighs_what_its_texts_do() -> None:
    details = ContractDetails(Contract(symbol="A" * 100), long_name="B" * 1000, sec_ids=(("ISIN", "C" * 46),))
    assert weight_of(details) == 1150


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000) | st.none()), max_size=60))
def test_the_bound_holds_whatever_is_kept_and_asked_for(steps: list[tuple[int, int | None]]) -> None:
    kept, most = Lately[int, str](5 * ENTRY_WEIGHT), 5 * ENTRY_WEIGHT
    model: dict[int, str] = {}
    for key, length in steps:
        if length is None:
            if key in model:
                model[key] = model.pop(key)
            assert kept.get(key) == model.get(key)
            continue
        kept[key] = "x" * length
        model.pop(key, None)
        model[key] = "x" * length
        while sum(ENTRY_WEIGHT + len(value) for value in model.values()) > most:
            del model[next(iter(model))]
        assert kept.weight == sum(ENTRY_WEIGHT + len(value) for value in model.values()) <= most
        assert len(kept) == len(model)
