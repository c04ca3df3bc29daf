"""Errors in Stripe's shape: https://docs.stripe.com/api/errors."""

from typing import Any


class ApiError(Exception):
    """An error answer. `begun`: the endpoint had begun executing, so the answer is remembered for the key."""

    def __init__(
        self, status: int, error: dict[str, Any], *, begun: bool = False, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(error.get("message"))
        self.status = status
        self.body = {"error": error}
        self.begun = begun
        self.headers = headers or {}


def invalid_request(code: str, message: str, param: str | None = None, *, status: int = 400) -> ApiError:
    """The parameters are wrong, and nothing was done."""
    return ApiError(
        status, {"type": "invalid_request_error", "code": code, "message": message, "param": param}, begun=False
    )


def wrong_state(code: str, message: str, **details: Any) -> ApiError:
    """The operation is impossible in the object's state."""
    return ApiError(400, {"type": "invalid_request_error", "code": code, "message": message, **details}, begun=True)


def unauthorized(given: str) -> ApiError:
    shown = f"{given[:8]}…" if given else "none"
    return ApiError(401, {"type": "invalid_request_error", "message": f"Invalid API Key provided: {shown}"})


def rate_limited(retry_after_s: int) -> ApiError:
    return ApiError(
        429,
        {
            "type": "invalid_request_error",
            "code": "rate_limit",
            "message": "Too many requests hit the API too quickly.",
        },
        headers={"Retry-After": str(retry_after_s)},
    )


def server_error(*, begun: bool) -> ApiError:
    return ApiError(500, {"type": "api_error", "message": "An unknown error occurred"}, begun=begun)


def other_parameters(key: str) -> ApiError:
    return ApiError(
        400,
        {
            "type": "idempotency_error",
            "message": "Keys for idempotent requests can only be used with the same parameters they were first used "
            f"with. Try using a key other than '{key}' if you meant to execute a different request.",
        },
    )


def key_in_use(key: str) -> ApiError:
    return ApiError(
        409,
        {
            "type": "idempotency_error",
            "code": "idempotency_key_in_use",
            "message": f"There is currently another in-progress request using this Idempotent Key: {key}.",
        },
    )
