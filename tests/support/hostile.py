"""Texts and bytes that a stranger may send, and that have broken programs before: one corpus for every door."""

from typing import Final

UNICODE: Final = {
    "bidi override": "a\u202eb",
    "bidi isolate": "\u2066a\u2069",
    "zero width space": "a\u200bb",
    "zero width joiner": "a\u200db",
    "byte order mark": "\ufeffa",
    "soft hyphen": "a\u00adb",
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "compatibility": "\ufb01\u212b",
    "many marks": "e" + "\u0301" * 500,
    "other digits": "\u0661\uff11",
    "four bytes": "\U0001f600",
    "tag": "\U000e0041",
    "unassigned": "\u0378",
    "private use": "\ue000",
    "noncharacter": "\uffff",
    "line separator": "a\u2028b",
    "control of C1": "\u009b31m",
    "escape": "\x1b[2J\x07",
    "lines": "a\r\nb: c",
    "delete": "a\x7f",
    "NUL": "a\x00b",
    "Turkish": "\u0130\u0131",
    "folded": "\u00df\ufb03",
}
"""By what is odd about them; all can be encoded."""

LONE_SURROGATES: Final = {"high surrogate": "a\ud800", "low surrogate": "\udc00a", "byte that is no UTF-8": "a\udcff"}
"""Texts of Python that are no Unicode: `\\ud800` in JSON, a byte of a command line."""

NO_UTF8: Final = {
    "overlong slash": b"\xc0\xaf",
    "overlong NUL": b"\xc0\x80",
    "overlong of three": b"\xe0\x80\xaf",
    "overlong of four": b"\xf0\x80\x80\xaf",
    "encoded surrogate": b"\xed\xa0\x80",
    "pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "continuation alone": b"\x80",
    "cut off": b"\xf0\x9f\x98",
    "Latin-1": b"caf\xe9",
    "UTF-16": "a".encode("utf-16"),
}
"""Bytes that are no UTF-8, by what is wrong with them."""

NUMBERS: Final = (
    *("0", "-0", "-1", "1", "00", "+1", "1_000", "0x10", "1.5", "1e3", "1e400", "nan", "inf", "-inf", "Infinity"),
    *(str(2**power + more) for power in (31, 32, 53, 63, 64) for more in (-1, 0, 1)),
    "9" * 400,
    "9" * 5000,
)
"""Numbers, and what some readers take for one."""

SHAPES: Final = (
    *("", " ", "-", "--", "%", "%s", "%n%n", "{}", "{0}", "null", "true", "[]", "[1]", '"', "'", "\\", "$(id)", "`id`"),
    *(
        "'; DROP TABLE users; --",
        "../../etc/passwd",
        "/dev/null/x",
        "a" * 255,
        "a" * 10_000,
        "*",
        "?",
        "#",
        "@a",
        "a:b",
    ),
    *("effects.users", "..", "..:x", "os:path", ":", "a:", ":a", "users\n", "USERS", "users ", "0s", "99999w", "1d1d"),
)
"""Words, quotes, paths, and names that are almost right."""

ODD_JSON: Final = (
    *('{"a":1,"a":2}', '{"a":NaN}', '{"a":"\\ud800"}', '{"a":1}x', "{'a':1}", '{"a":1,}', '{"a":01}', '{"a":"\n"}'),
    *("[" * 200 + "]" * 200, '{"a":' * 200 + "1" + "}" * 200, "[" * 100_000, '{"' + "a" * 10_000 + '":1}'),
)
"""JSON that some readers take and some do not, or that has two meanings."""

TIMES: Final = (
    *("0001-01-01", "9999-12-31", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2030-02-30", "0000-00-00"),
    *("2030-01-01T24:00:00Z", "2030-01-01T00:00:60Z", "2030-01-01T00:00:00+99:99", "2030-06-30T23:59:60Z"),
)
"""Times at the ends of the calendar, and some that there are not."""

TEXTS: Final = (*UNICODE.values(), *LONE_SURROGATES.values(), *NUMBERS, *SHAPES, *ODD_JSON, *TIMES)
"""All texts of the corpus."""
