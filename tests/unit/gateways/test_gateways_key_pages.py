"""The key behind which a page of one's own list begins."""

from typing import Any
from uuid import UUID

import pytest

from coordinator import Row, Service
from coordinator.http import KeyPageQuery, RequestRefused, after_key
from coordinator.stores.row_checks import WrongUse

SERVICE = Service("keys")


@SERVICE.row
class Text(Row, table="texts", key="name"):
    name: str


@SERVICE.row
class Number(Row, table="numbers", key="id"):
    id: int


@SERVICE.row
class Unique(Row, table="uuids", key="id"):
    id: UUID


@SERVICE.row
class Both(Row, table="boths", key=("name", "id")):
    name: str
    id: UUID


class Another(Row, table="anothers", key="id"):
    id: int


@pytest.mark.parametrize(
    ("model", "text", "key"),
    [
        (Text, "7", "7"),
        (Text, '["a"]', '["a"]'),
        (Number, "-7", -7),
        (Unique, str(UUID(int=7)), UUID(int=7)),
        (Both, f'["a","{UUID(int=7)}"]', ("a", UUID(int=7))),
        (Both, None, None),
    ],
)
def test_a_text_means_one_key(model: type[Row], text: str | None, key: Any) -> None:
    assert after_key(SERVICE, model, KeyPageQuery(after=text)) == key


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Text, "a\0"),
        (Number, "07"),
        (Number, "9" * 19),
        (Number, ""),
        (Unique, "7"),
        (Both, "a"),
        (Both, '["a","b"]'),
        (Both, f'["a","{UUID(int=7)}",1]'),
        (Both, f'["a\\u0000","{UUID(int=7)}"]'),
    ],
)
def test_what_is_the_key_of_no_row_is_refused_in_words(model: type[Row], text: str) -> None:
    with pytest.raises(RequestRefused, match="after must be the key of a row") as refused:
        after_key(SERVICE, model, KeyPageQuery(after=text))
    assert (refused.value.status, refused.value.code, refused.value.field) == (400, "invalid_query", "after")


def test_a_class_of_another_service_is_no_row_of_this_one() -> None:
    with pytest.raises(WrongUse):
        after_key(SERVICE, Another, KeyPageQuery(after="1"))
