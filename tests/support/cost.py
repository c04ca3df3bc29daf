"""How the cost of reading outside text grows with its length."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

GROWTH_MAX: Final = 2.5
"""CPU time of twice the text, over that of the text. A reader that goes back over what it has read has 4 and more."""
FLOOR_S: Final = 0.008
"""Below this the clock and the machine's noise say more than the text does, and nothing is harmed."""

UNITS: Final = (
    *(" ", "\t", '"', ",", "\\", ";", "=", "9", "0", "%", "%2F", "a", "A", "-", ".", "@", "`", "'", "[", "{", "&", "/"),
    *(
        '\\"',
        "\\\\",
        '"a",',
        '"a" ,',
        "a,",
        ", ",
        "a=b;",
        'a=" ',
        '=" "',
        "; ",
        "=;",
        "a ",
        'W/"',
        '""',
        "a;,",
        "é",
        "ß",
    ),
    *(";charset", "; charset = ", "at `$", "t=1,", "v1=", "a=1&", "{}", '{"a":', "[[", "1,", "\\u0000", "\\ud800"),
)
_STARTS: Final = ("", "a", "a=", '"', '"a"', "a=b;", 'W/"', ";charset", ";charset=", "at `$", "t=", "[", '{"a":', "a@")
_ENDS: Final = ("", '"', "!", "\x00", ",", "]")

T = TypeVar("T")


def adversarial() -> Iterator[Callable[[int], str]]:
    """Families of texts that are long repetitions: each makes one of any length."""
    for start in _STARTS:
        for unit in UNITS:
            for end in _ENDS:

                def of_length(characters: int, start: str = start, unit: str = unit, end: str = end) -> str:
                    return (start + unit * (characters // len(unit)))[: characters - len(end)] + end

                yield of_length


def cpu_s(read: Callable[[T], object], text: T, *, times: int = 1) -> float:
    """The least CPU time that reading took; whatever it raises is an answer too."""
    least_s = float("inf")
    for _ in range(times):
        began_s = time.process_time()
        with contextlib.suppress(Exception):
            read(text)
        least_s = min(least_s, time.process_time() - began_s)
    return least_s


def assert_grows_with_length(read: Callable[[T], object], make: Callable[[int], T], longest: int) -> None:
    """Twice the text costs at most GROWTH_MAX times as much, up to the longest."""
    if cpu_s(read, make(longest)) <= FLOOR_S:
        return
    length = longest // 4
    while 2 * length <= longest:
        once_s, twice_s = cpu_s(read, make(length), times=5), cpu_s(read, make(2 * length), times=3)
        shown = f"{make(40)!r}: {length} characters take {once_s:.4f} s, twice as many {twice_s:.4f} s"
        assert twice_s <= max(FLOOR_S, GROWTH_MAX * once_s), shown
        length *= 2
