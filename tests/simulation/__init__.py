"""The whole system but its servers, in one thread, decided by a seed: `python -m tests.simulation --help`.

Real: the lane with its publisher order, unit of work, settlement, dead letters and orders, the acknowledger, the inbox,
the wire codec and what makes deliveries of messages, and the publishing of what is emitted.
Simulated, each in its file: the broker, the database, the clocks, and the thin edges that join them (`process.py`
mirrors coordinator/worker/lane_thread.py and the consumer of coordinator/transports/rabbitmq, `publisher.py` its
publisher).
Beside the clients (`client.py`, `plans.py`, `contests.py`) and the faults (`chaos.py`) there act strangers
(`stranger.py`), who may publish to `writes` only, and an operator (`operator.py`); an older release may have left
something behind (`past.py`),
and a database may fall back to an older copy (`failover.py`). Some worlds have the product's cache, on a Redis that is
simulated (`cache.py`), some have workers of effects with a provider (`worker.py`, `event_loop.py`), some forget old
log entries and letters (`retention.py`), and some have small limits (`limits.py`).
`verdict.py` judges, with a model of the services (`model.py`) and with what `letters.py` and `parked.py` know.
Not simulated: AMQP frames, SQL, threads; the tests against real servers are for those.
"""
