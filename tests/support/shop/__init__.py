"""Somebody else's system: one service with one table, and a helper. It shows what `coordinator dev` needs to know."""

from coordinator import App

APP = App(
    services={"orders": "tests.support.shop.service:SERVICE"},
    gateways={"orders": "tests.support.shop.gateway:GATEWAY"},
    dev={"orders": "tests.support.shop.dev:DEV"},
)
