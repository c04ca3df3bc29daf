"""What a gateway says of itself: OpenAPI, JSON Schemas, a page to read and try them, and what problems mean."""
