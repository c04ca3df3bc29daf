"""Effects over RabbitMQ: their queue, and the queues where they wait for the next attempt."""
