"""`python -m coordinator.dev.sandbox`: serve until SIGTERM or SIGINT."""

from pathlib import Path

import click
from aiohttp import web

from coordinator.dev.sandbox.account import Account
from coordinator.dev.sandbox.server import Sandbox
from coordinator.dev.sandbox.webhooks import Deliveries


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8090, show_default=True)
@click.option(
    "--data", type=click.Path(path_type=Path, dir_okay=False), help="Keep everything there.  [default: memory]"
)
@click.option("--webhook-url", help="Where to deliver events.")
@click.option("--webhook-secret", default="whsec_sandbox", show_default=True, help="What to sign them with.")
def main(port: int, data: Path | None, webhook_url: str | None, webhook_secret: str) -> None:
    """A payment provider that charges nobody: the part of Stripe's API that the payments service uses."""
    account = Account(data)
    deliveries = None if webhook_url is None else Deliveries(account, webhook_url, webhook_secret)
    try:
        web.run_app(Sandbox(account, deliveries).app(), host="127.0.0.1", port=port, access_log=None, print=None)
    finally:
        account.close()


main()
