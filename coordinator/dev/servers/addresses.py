"""The URLs of the servers, whoever runs them, and the environment that our processes get from them."""

from dataclasses import dataclass

HOST = "127.0.0.1"


def amqp_url(port: int) -> str:
    return f"amqp://guest:guest@{HOST}:{port}/%2F"


def postgresql_url(port: int, *, role: str = "coordinator") -> str:
    """A role's password is its name."""
    return f"postgresql://{role}:{role}@{HOST}:{port}/users"


def mysql_url(port: int, *, role: str = "coordinator") -> str:
    """A role's password is its name."""
    return f"mysql://{role}:{role}@{HOST}:{port}/payments"


def mongodb_url(port: int) -> str:
    """Direct: the one member is not looked for under the name that its replica set has for it."""
    return f"mongodb://{HOST}:{port}/items?directConnection=true"


def redis_url(port: int) -> str:
    return f"redis://{HOST}:{port}/0"


@dataclass(frozen=True, slots=True)
class ServerPorts:
    """A port for each server; None: a free one is chosen."""

    amqp: int | None = None
    amqp_dist: int | None = None
    epmd: int | None = None
    postgresql: int | None = None
    mysql: int | None = None
    mongodb: int | None = None
    redis: int | None = None


def environment(*, amqp: int, postgresql: int, mysql: int, mongodb: int, redis: int) -> dict[str, str]:
    """The settings that tell our processes where the servers are. The reader roles are migrate's to make."""
    return {
        "AMQP_URL": amqp_url(amqp),
        "USERS_DATABASE_URL": postgresql_url(postgresql),
        "USERS_READER_URL": postgresql_url(postgresql, role="users_reader"),
        "PAYMENTS_DATABASE_URL": mysql_url(mysql),
        "PAYMENTS_READER_URL": mysql_url(mysql, role="payments_reader"),
        "ITEMS_DATABASE_URL": mongodb_url(mongodb),
        "ITEMS_READER_URL": mongodb_url(mongodb),
        "REDIS_URL": redis_url(redis),
    }
