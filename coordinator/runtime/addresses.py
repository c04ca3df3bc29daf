"""What an address of a database says, without any driver."""


def scheme_of(url: str) -> str:
    """The kind of database that an address names: `postgresql`, `mysql`, `mongodb`, …"""
    return url.partition("://")[0].partition("+")[0]
