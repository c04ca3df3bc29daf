"""Commands, outcomes and effects over RabbitMQ."""
