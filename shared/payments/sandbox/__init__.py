"""The sandbox: a payment provider for development and tests, which speaks the part of Stripe's API that we use.

Stripe's own client talks to it unchanged. It keeps the rules of Stripe that matter for payments: idempotency keys, the
states of a payment, the shapes of errors, signed events that are delivered until they are taken. It also fails on
demand: cards decline, calls fail before or after they have had their effect, answers are lost.

    app.py         HTTP: Stripe's endpoints, and /sandbox/… to control it and to see its charges
    calls.py       one call: faults, idempotency keys, effect, answer
    account.py     the operations on payments and refunds
    faults.py      decides which call fails, and how: by payment method, or at random by a seed
    webhooks.py    events, signed and delivered
    store.py       SQLite: charges survive SIGKILL
"""
