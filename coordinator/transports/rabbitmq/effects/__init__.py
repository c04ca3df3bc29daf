"""Effects over RabbitMQ: their queue, and those where they wait for the next attempt."""
