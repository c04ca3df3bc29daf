"""The reference system as an application: COORDINATOR_APP=gateways.app:APP."""

from coordinator import App

APP = App(
    services={
        "users": "shared.users:SERVICE",
        "items": "shared.items:SERVICE",
        "payments": "shared.payments:SERVICE",
    },
    gateways={
        "users": "gateways.users:GATEWAY",
        "items": "gateways.items:GATEWAY",
        "payments": "gateways.payments:GATEWAY",
    },
    dev={
        "users": "shared.users.dev:DEV",
        "items": "shared.items.dev:DEV",
        "payments": "shared.payments.dev:DEV",
    },
    settings={
        "shared.payments.settings:StripeSettings": "effect workers and gateway of payments",
    },
)
