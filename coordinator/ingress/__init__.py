"""The ingress: what outside accounts of RabbitMQ publish, handed on to lanes within their limits."""
