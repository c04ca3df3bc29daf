"""Articles in stock: a code that is unique, pieces that never go below zero, and what is taken is given back once.

coordinator dev stock:stock
"""

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from coordinator import Command, Digits, Id, Quantity, Rejected, Service, UnitOfWork, VersionedRow, at_fault

stock = Service("stock")

Code = Annotated[str, Meta(min_length=1, max_length=20, pattern=r"\A[A-Z0-9-]+\Z")]
Price = Annotated[Decimal, Digits(12, 2)]
PRICE_MAX = 1_000_000


@stock.row(is_public=True)
class Article(VersionedRow, table="articles", key="id", unique=("code",)):
    """Something that is sold, and how many pieces of it are left."""

    id: int
    code: Code
    price: Price
    pieces: int


@stock.row(is_public=True)
class Taken(VersionedRow, table="taken", key="id"):
    """Pieces that somebody has taken, at the price of that moment."""

    id: int
    article: int
    pieces: int
    amount: Price
    status: Literal["taken", "given_back"] = "taken"


class ListArticle(Command, type="stock.list"):
    """Put an article on sale. Rejected: `code_taken`."""

    code: Code
    price: Price
    pieces: Quantity

    def __post_init__(self) -> None:
        # No type says this of a decimal.
        if not 0 <= self.price <= PRICE_MAX:
            raise at_fault("price", f"Expected 0 to {PRICE_MAX}")


class TakePieces(Command, type="stock.take"):
    """Take pieces of an article. Rejected: `article_not_found`, `sold_out`."""

    article: Id
    pieces: Quantity


class GiveBack(Command, type="stock.give_back"):
    """Give back what was taken, all of it, once. Rejected: `taken_not_found`, `given_back_already`."""

    id: Id


@stock.handles(ListArticle, reads=lambda command: [Article.at(code=command.code)])
def list_article(work: UnitOfWork, command: ListArticle) -> Article:
    if work.find(Article, "code", command.code) is not None:
        raise Rejected("code_taken", f"there is an article {command.code} already")
    return work.add(Article(id=work.next_id(Article), code=command.code, price=command.price, pieces=command.pieces))


@stock.handles(TakePieces, target=lambda command: Article.at(command.article))
def take(work: UnitOfWork, command: TakePieces) -> Taken:
    article = work.get(Article, command.article)
    if article is None:
        raise Rejected("article_not_found", f"there is no article {command.article}")
    if article.pieces < command.pieces:
        raise Rejected("sold_out", f"{article.pieces} pieces are left, not {command.pieces}")
    work.save(article.replace(pieces=article.pieces - command.pieces))
    return work.add(
        Taken(
            id=work.next_id(Taken),
            article=article.id,
            pieces=command.pieces,
            amount=article.price * command.pieces,
        )
    )


@stock.handles(GiveBack, target=lambda command: Taken.at(command.id))
def give_back(work: UnitOfWork, command: GiveBack) -> Taken:
    taken = work.get(Taken, command.id)
    if taken is None:
        raise Rejected("taken_not_found", f"nothing was taken under the number {command.id}")
    if taken.status == "given_back":
        raise Rejected("given_back_already", f"number {taken.id} was given back already")
    if (article := work.get(Article, taken.article)) is not None:
        work.save(article.replace(pieces=article.pieces + taken.pieces))
    return work.save(taken.replace(status="given_back"))
