"""What tells apart the tags of one node: by its lives and its starts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dsreg.protocol.names import LIVES_IN_NAMES, is_apart, name_bits

numbers = st.integers(1, 1 << 40)
starts = st.integers(1, 1 << 40)


def test_values() -> None:
    assert [name_bits(1, start) for start in (0, 1, 4095, 65534, 65535, 65536)] == [1, 2, 4096, 65535, 1, 2]
    assert [name_bits(2, start) for start in (0, 1, 4094, 4095)] == [0x1001, 0x1002, 0x1FFF, 0x1001]
    assert [name_bits(number, 1) for number in (3, 16, 17, 18)] == [0x2002, 0xF002, 2, 0x1002]


@given(numbers, starts)
def test_they_fit_and_are_never_0(number: int, start: int) -> None:
    assert 1 <= name_bits(number, start) <= 0xFFFF


@given(st.integers(2, 1 << 40), st.integers(0, 1 << 17), st.data())
def test_a_life_that_is_apart_has_no_name_of_the_first_one(number: int, last: int, data: st.DataObject) -> None:
    """`last`: the highest incarnation that was heard of; what nobody has heard of was not the first 16 bits long."""
    if not is_apart(number, last):
        return
    in_first = data.draw(st.integers(0, last or 14 << 12))
    later = data.draw(st.integers(1, 1 << 40))
    assert name_bits(number, later) != name_bits(1, in_first)


@given(st.integers(0, 61_438))
def test_there_is_always_one_that_is_apart_up_to_so_many_starts(last: int) -> None:
    apart = [number for number in range(2, 2 + LIVES_IN_NAMES) if is_apart(number, last)]
    assert apart and (last > 4094 or last == 0 or apart[0] == 2)
    assert not any(is_apart(number, 61_439) for number in range(2, 99))


@given(st.integers(2, 1 << 20), st.integers(1, 15), starts, starts)
def test_two_later_lives_that_are_near_have_no_name_in_common(number: int, more: int, one: int, two: int) -> None:
    assert name_bits(number, one) != name_bits(number + more, two)


@given(st.integers(2, 1 << 20), starts, st.integers(1, 4094))
def test_no_name_comes_twice_in_4095_starts(number: int, start: int, more: int) -> None:
    assert name_bits(number, start) != name_bits(number, start + more)
