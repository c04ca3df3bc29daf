"""`simulate` meets rows: commands that it makes up find some, whatever their keys are, and it says where none did."""

import time
import warnings
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct

from coordinator import Command, Handler, Name, Principal, Rejected, Row, Service, UnitOfWork, VersionedRow
from coordinator.testing import NeverApplied, SimulationFailed, simulate

pytestmark = pytest.mark.authors

Isbn = Annotated[str, Meta(min_length=10, max_length=13, pattern=r"\A[0-9]{9,12}[0-9X]\Z")]
Number = Annotated[int, Meta(ge=1, le=2**31 - 1)]
ISBN = "9780131103627"
SEEDS = 30


class Book(VersionedRow, table="books", key="isbn", unique=("shelf",)):
    isbn: Isbn
    shelf: str
    title: str = ""


class Loan(VersionedRow, table="loans", key=("isbn", "member", "number"), index=("reader",)):
    isbn: Isbn
    member: int
    number: int
    reader: str


class Rename(Command, type="library.rename"):
    isbn: Isbn
    title: Name


class GiveBack(Command, type="library.give_back"):
    """Named as no column is."""

    book: Isbn
    of: Number
    which: Number


class Line(Struct):
    book: Isbn


class RenameAll(Command, type="library.rename_all"):
    lines: Annotated[list[Line], Meta(min_length=1, max_length=3)]


class Extend(Command, type="library.extend"):
    reader: Annotated[str, Meta(pattern=r"\A[a-z]{8}@[a-z]{8}\Z")]


class Clear(Command, type="library.clear"):
    """Of a unique column."""

    shelf: Annotated[str, Meta(pattern=r"\A[A-Z]{4}-[0-9]{6}\Z")]


GIVEN = (
    Book(isbn=ISBN, shelf="ABCD-123456"),
    Loan(isbn=ISBN, member=70_001, number=12, reader="adaadaad@exampleo"),
)


def rename(work: UnitOfWork, command: Rename) -> Book:
    book = work.get(Book, command.isbn)
    if book is None:
        raise Rejected("book_not_found", "there is no such book")
    return work.save(book.replace(title=f"{command.title} {time.time()}"))


def give_back(work: UnitOfWork, command: GiveBack) -> None:
    loan = work.get(Loan, (command.book, command.of, command.which))
    if loan is None:
        raise Rejected("loan_not_found", "there is no such loan")
    work.save(loan.replace(reader=str(time.time())))


def rename_all(work: UnitOfWork, command: RenameAll) -> None:
    books = [work.get(Book, line.book) for line in command.lines]
    if None in books:
        raise Rejected("book_not_found", "there is no such book")
    time.time()


def extend(work: UnitOfWork, command: Extend) -> None:
    if not work.select(Loan, reader=command.reader, limit=1):
        raise Rejected("loan_not_found", "there is no such loan")
    time.time()


def clear(work: UnitOfWork, command: Clear) -> None:
    if work.find(Book, "shelf", command.shelf) is None:
        raise Rejected("book_not_found", "there is no such book")
    time.time()


def library(*handlers: Handler[Any]) -> Service:
    return Service("library", models=(Book, Loan), handlers=handlers)


@pytest.mark.parametrize(
    "handler",
    [
        Handler(Rename, rename, target=lambda each: Book.at(each.isbn)),
        Handler(Rename, rename),
        Handler(GiveBack, give_back, target=lambda each: Loan.at(each.book, each.of, each.which)),
        Handler(GiveBack, give_back),
        Handler(RenameAll, rename_all, reads=lambda each: [Book.at(line.book) for line in each.lines]),
        Handler(Extend, extend),
        Handler(Clear, clear),
    ],
    ids=["text key", "looked for", "three columns", "three, looked for", "list", "index", "unique"],
)
def test_what_is_behind_a_row_that_must_be_there_is_tried(handler: Handler[Any]) -> None:
    with pytest.raises(SimulationFailed, match=r"it looks at the clock: time\.time"):
        simulate(library(handler), given=GIVEN, seeds=SEEDS, elsewhere=False)


class Copy(VersionedRow, table="copies", key="isbn", index=("reader",)):
    isbn: Isbn
    reader: str | None = None


class Lend(Command, type="library.lend"):
    """Of a copy that nobody has yet: its row has no value for one of the arguments."""

    isbn: Isbn
    reader: Name


def lend(work: UnitOfWork, command: Lend) -> None:
    if work.get(Copy, command.isbn) is None:
        raise Rejected("copy_not_found", "there is no such copy")
    if work.exists(Copy, reader=command.reader):
        raise Rejected("has_one", "this reader has a copy")
    time.time()


def test_a_row_without_a_value_for_an_argument_is_met_too() -> None:
    service = Service("library", models=(Copy,), handlers=(Handler(Lend, lend),))
    with pytest.raises(SimulationFailed, match=r"it looks at the clock: time\.time"):
        simulate(service, given=[Copy(isbn=ISBN)], seeds=SEEDS, elsewhere=False)


class AddBook(Command, type="library.add"):
    isbn: Isbn
    shelf: Name


def add(work: UnitOfWork, command: AddBook) -> None:
    if work.get(Book, command.isbn) is None and work.find(Book, "shelf", command.shelf) is None:
        work.add(Book(isbn=command.isbn, shelf=command.shelf))


def ignore(work: UnitOfWork, command: AddBook) -> None: ...


def test_rows_that_other_commands_have_made_are_met_too() -> None:
    with pytest.raises(SimulationFailed, match=r"library\.rename, .* it looks at the clock: time\.time"):
        simulate(library(Handler(Rename, rename), Handler(AddBook, add)), seeds=SEEDS, elsewhere=False)


def test_a_handler_that_applies_nothing_is_named_in_a_warning() -> None:
    """With how often it was tried, why it has refused, and what to do."""
    service = library(Handler(Rename, rename), Handler(AddBook, ignore))
    with pytest.warns(NeverApplied) as warned:
        simulate(service, seeds=2 * SEEDS, elsewhere=False)
    (warning,) = warned
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith(f"library.rename, handler rename ({__file__}:")
    for part in ("in none of ", "book_not_found ", "given=", "commands=", "ignore::coordinator.testing.NeverApplied"):
        assert part in text


@pytest.mark.filterwarnings("ignore::coordinator.testing.NeverApplied")
def test_a_handler_that_is_to_refuse_all_may() -> None:
    simulate(library(Handler(Rename, rename)), seeds=SEEDS, elsewhere=False)


def test_of_a_few_commands_nothing_is_said() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(library(Handler(Rename, rename)), [Rename(isbn=ISBN, title="a")], seeds=1, elsewhere=False)


class Note(Row, table="notes", key="id"):
    id: int
    owner: str


class Edit(Command, type="notes.edit"):
    id: Annotated[int, Meta(ge=10**6)]


def test_what_a_rule_looks_for_is_met_too() -> None:
    edited: list[int] = []
    notes = Service("notes", models=(Note,))

    @notes.handles(
        Edit, allow=lambda who, command, rows: rows.get(Note, command.id) == Note(id=10**9, owner=who.subject)
    )
    def edit(work: UnitOfWork, command: Edit) -> None:
        edited.append(command.id)

    actors = [Principal(subject="ada"), Principal(subject="bob")]
    simulate(notes, given=[Note(id=10**9, owner="ada")], actors=actors, seeds=SEEDS, elsewhere=False)
    assert edited


def test_a_seed_decides_a_history_whatever_came_before_it() -> None:
    said: list[tuple[str, str]] = []
    for seeds in (range(SEEDS), None):
        with pytest.raises(SimulationFailed) as failed:
            simulate(
                library(Handler(GiveBack, give_back)), given=GIVEN, seeds=seeds or [int(said[0][1])], elsewhere=False
            )
        text = str(failed.value)
        said.append((text, text.rpartition("seeds=[")[2].removesuffix("])")))
    assert said[0] == said[1]
