"""The sandbox provider as a process, and the provider port on it through Stripe's own client."""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from coordinator.dev.programs import Program
from coordinator.dev.servers.ports import free_port
from shared.payments.sandbox.defaults import API_KEY, METADATA_KEY, WEBHOOK_SECRET
from shared.payments.settings import StripeSettings
from shared.payments.stripe_provider import StripeProvider
from tests.support.system import wait_until

_CALL_TIMEOUT_S = 15.0


class RunningSandbox:
    """One sandbox on a file. Killed, it is started again on the same file and port."""

    def __init__(self, directory: Path, webhook_url: str | None = None) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        argv = [sys.executable, "-m", "shared.payments.sandbox", "--port", str(port)]
        argv += ["--data", str(directory / "sandbox.db")]
        argv += ["--webhook-url", webhook_url] if webhook_url else []
        self._program = Program(
            "sandbox", argv, base_url=self.url, log_path=directory / "sandbox.log", stop_timeout_s=5.0
        )
        self.start()

    def start(self) -> None:
        """Return once it is ready."""
        self._program.start()
        try:
            wait_until(lambda: self._program.ready, f"{self.url} is ready")
        except AssertionError:
            self.kill()
            raise AssertionError(self._program.log_tail()) from None

    def kill(self) -> None:
        """SIGKILL."""
        self._program.kill()

    def stop(self) -> None:
        """SIGTERM."""
        self._program.stop()

    def settings(self, **changed: Any) -> StripeSettings:
        values: dict[str, Any] = {
            "api_key": SecretStr(API_KEY),
            "api_base": self.url,
            "webhook_secret": SecretStr(WEBHOOK_SECRET),
            "metadata_key": SecretStr(METADATA_KEY),
        }
        return StripeSettings(**(values | changed))

    def provider(self, **changed: Any) -> StripeProvider:
        return StripeProvider(self.settings(**changed))

    def charges(self, *, at_least: int = 0, status: str = "") -> list[dict[str, Any]]:
        """What it charged, once there are so many; those of one status, or all."""
        query = f"at_least={at_least}" + (f"&status={status}" if status else "")
        charges: list[dict[str, Any]] = self._call(f"/sandbox/charges?{query}")["charges"]
        return charges

    def set_faults(self, *, delay_s: float = 1.0, seed: int = 0, search_lag_s: float = 0.0, **rates: float) -> None:
        plan = {"rates": rates, "seed": seed, "delay_s": delay_s, "search_lag_s": search_lag_s}
        self._call("/sandbox/faults", plan)

    def set_webhooks(self, *, copies: int = 1, shuffle: bool = False, seed: int = 0) -> None:
        self._call("/sandbox/webhooks", {"copies": copies, "shuffle": shuffle, "seed": seed})

    def forget_keys(self) -> None:
        self._call("/sandbox/forget", {})

    def expire(self, payment_intent: str) -> None:
        self._call("/sandbox/expire", {"payment_intent": payment_intent})

    def fail_refund(self, refund: str) -> None:
        self._call("/sandbox/fail", {"refund": refund})

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data, timeout=_CALL_TIMEOUT_S) as answer:
            return json.load(answer)
