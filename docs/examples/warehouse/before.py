"""The application as it was: `python -m warehouse.before fill 2000` and `… sell 7 3` write the table themselves."""

import sys

from sqlalchemy.orm import Session

from .models import Base, Product, engine


def fill(count: int) -> None:
    """Make the table, with so many products."""
    database = engine()
    Base.metadata.create_all(database)
    with Session(database) as session:
        session.add_all(Product(id=number, name=f"product {number}", stock=1000) for number in range(1, count + 1))
        session.commit()


def sell(product_id: int, quantity: int) -> int:
    """Two processes at once lose one of their sales: that is why the lane comes."""
    with Session(engine()) as session:
        product = session.get_one(Product, product_id)
        product.stock -= quantity
        session.commit()
        return product.stock


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(int(sys.argv[2]))
    else:
        print(sell(int(sys.argv[2]), int(sys.argv[3])))  # noqa: T201  # its output
