"""`python -m shared.payments.sandbox`: the sandbox as a process."""

from pathlib import Path

import click
from aiohttp import web

from shared.payments.sandbox.app import Sandbox
from shared.payments.sandbox.defaults import API_KEY, PORT, WEBHOOK_SECRET


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, show_default=True, help="Where to listen.")
@click.option("--data", type=click.Path(path_type=Path, dir_okay=False), help="An SQLite file; without it, memory.")
@click.option("--api-key", default=API_KEY, show_default=True, help="The only API key that it accepts.")
@click.option("--webhook-url", help="The address that gets events; without it, none are sent.")
@click.option(
    "--webhook-secret",
    default=WEBHOOK_SECRET,
    envvar="STRIPE_WEBHOOK_SECRET",
    show_envvar=True,
    show_default=True,
    help="The secret that signs events.",
)
def main(host: str, port: int, data: Path | None, api_key: str, webhook_url: str | None, webhook_secret: str) -> None:
    """A payment provider that charges nobody, and speaks the part of Stripe's API that we use."""
    if data is not None:
        data.parent.mkdir(parents=True, exist_ok=True)

    async def application() -> web.Application:
        return Sandbox(data, api_key=api_key, webhook_url=webhook_url, webhook_secret=webhook_secret).application()

    # Nobody's money waits for an answer that is being delayed on purpose.
    web.run_app(application(), host=host, port=port, print=None, access_log=None, shutdown_timeout=0.5)


if __name__ == "__main__":
    main()
