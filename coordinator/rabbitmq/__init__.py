"""RabbitMQ around a lane: the consumer, with the thread that does its I/O."""
