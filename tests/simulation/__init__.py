"""The whole system but its servers, in one thread, decided by a seed: `python -m tests.simulation --help`.

Real: the lane with its publisher order, unit of work and settlement, the acknowledger, the inbox and the wire codec.
Simulated, each in its file: the broker, the database, the clocks, and the thin edges that join them (`process.py`
mirrors coordinator/worker.py and coordinator/rabbitmq/consumer.py, `publisher.py` shared/messaging/publisher.py).
Not simulated: AMQP frames, SQL, threads; the tests against real servers are for those.
"""
