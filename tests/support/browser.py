"""A headless Chromium, driven by its DevTools protocol: nothing is installed for it but Debian's `chromium`."""

import asyncio
import base64
import hashlib
import itertools
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.dev.install import Installation, NeededProgram
from coordinator.dev.servers.process import Process
from coordinator.dev.servers.programs import find
from coordinator.service.errors import ConfigurationError

START_TIMEOUT_S = 30.0
WAIT_S = 15.0
FETCH_TIMEOUT_S = 60.0
CHROMIUM = NeededProgram(("chromium", "chromium-browser", "google-chrome"), "chromium")
AXE_VERSION = "4.14.1"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
AXE_FILE = f"axe-core-{AXE_VERSION}.min.js"


def chromium() -> str:
    """Its path; it is installed where it is missing, as servers are. What cannot be had fails the test.

    With WITHOUT_BROWSER=allow it skips the test instead, on a machine that lets nobody install one.
    """
    try:
        with tempfile.TemporaryDirectory() as directory:
            Installation(print, Path(directory) / "apt.log", (CHROMIUM,)).run()
    except ConfigurationError as error:
        if os.environ.get("WITHOUT_BROWSER") == "allow":
            pytest.skip(f"no browser: {error}")
        raise
    found = find(*CHROMIUM.names)
    assert found is not None
    return str(found)


def axe() -> str | None:
    """The text of axe-core, which finds what keeps out keyboards and screen readers; None: npm cannot fetch it here.

    It is kept in this user's cache, so that it is fetched once.
    """
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "write-coordinator" / AXE_FILE
    if not kept.exists():
        fetched = _fetched_axe()
        if fetched is None:
            return None
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            file.write(fetched)
        # Others of this run may fetch it, too.
        Path(file.name).replace(kept)
    script = kept.read_bytes()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256, f"{kept} is not axe-core {AXE_VERSION}: remove it"
    return script.decode()


def _fetched_axe() -> bytes | None:
    npm = shutil.which("npm")
    if npm is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        command = [npm, "pack", "--silent", "--pack-destination", directory, f"axe-core@{AXE_VERSION}"]
        try:
            subprocess.run(command, capture_output=True, timeout=FETCH_TIMEOUT_S, check=True, cwd=directory)
        except (subprocess.SubprocessError, OSError):
            return None
        with tarfile.open(Path(directory) / f"axe-core-{AXE_VERSION}.tgz") as files:
            script = files.extractfile("package/axe.min.js")
            assert script is not None
            return script.read()


class Page:
    """One tab. `errors` are what its console had as errors, and what its scripts did not catch."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.errors: list[str] = []
        self.requests: list[str] = []

    async def read(self) -> None:
        """Take what the browser says, until it is gone."""
        async for message in self._socket:
            said = message.json()
            if (number := said.get("id")) is not None:
                answer = self._answers.pop(number)
                if not answer.done():
                    answer.set_result(said)
            else:
                self._note(said["method"], said["params"])
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the browser is gone"))

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask something of the browser."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, START_TIMEOUT_S)
        assert "error" not in said, (method, said["error"])
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str) -> None:
        await self.send("Page.navigate", url=url)

    async def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript, which may be awaited."""
        said = await self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def until(self, expression: str, timeout_s: float = WAIT_S) -> Any:
        """Wait until an expression is true, asked at each frame in the page itself; its value."""
        limit_ms = int(timeout_s * 1000)
        return await self.ask(
            f"""(async () => {{
                const began = performance.now();
                for (;;) {{
                    let found;
                    try {{ found = ({expression}); }} catch (error) {{ found = null; }}
                    if (found) return found === true ? true : String(found.textContent ?? found);
                    if (performance.now() - began > {limit_ms})
                        throw new Error("not so: " + {expression!r} + " in: " + document.body.innerText.slice(0, 1500));
                    await new Promise((done) => setTimeout(done, 15));
                }}
            }})()"""
        )

    async def text(self) -> str:
        found: str = await self.ask("document.body.innerText")
        return found

    async def click(self, text: str, within: str = "document") -> None:
        """The visible button or link that has this text."""
        find = f"[...{within}.querySelectorAll('button, a')].find((e) => e.textContent.trim() === {text!r})"
        await self.until(f"(() => {{ const e = {find}; if (e && !e.disabled) {{ e.click(); return true; }} }})()")

    async def fill(self, selector: str, value: str) -> None:
        """An input, as if it was typed in."""
        await self.until(
            f"(() => {{ const e = document.querySelector({selector!r}); if (!e) return false;"
            f" e.value = {value!r}; e.dispatchEvent(new Event('input', {{bubbles: true}})); return true; }})()"
        )

    async def size(self, width: int, height: int, *, is_dark: bool = False) -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path, *, is_whole: bool = True) -> None:
        said = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=is_whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(said["data"]))

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.errors.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "warning", "assert"):
                self.errors.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])


class Browser:
    """A browser of its own profile. Each page has cookies of its own."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, url: str) -> None:
        self._session = session
        self._url = url
        self._page = Page(socket)

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        async with self._session.ws_connect(self._url, max_msg_size=0) as socket:
            whole = Page(socket)
            reading = asyncio.create_task(whole.read())
            context = (await whole.send("Target.createBrowserContext"))["browserContextId"]
            target = await whole.send("Target.createTarget", url="about:blank", browserContextId=context)
            place = self._url.partition("/devtools/")[0]
            async with self._session.ws_connect(f"{place}/devtools/page/{target['targetId']}", max_msg_size=0) as own:
                page = Page(own)
                reading_page = asyncio.create_task(page.read())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.send(f"{domain}.enable")
                await page.size(1280, 900)
                try:
                    yield page
                finally:
                    await whole.send("Target.disposeBrowserContext", browserContextId=context)
                    await asyncio.gather(reading_page, return_exceptions=True)
            await socket.close()
            await reading


@asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Browser]:
    """Start one, and end it."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    port_file = directory / "profile" / "DevToolsActivePort"
    command = [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--remote-debugging-port=0", "--remote-allow-origins=*", "--no-first-run", "--hide-scrollbars"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={directory / 'profile'}", "about:blank"]
    # It has its sockets there, whose paths must be short, and leaves them when it is killed.
    scratch = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8", "TMPDIR": scratch.name}
    process = Process(command, log_path=directory / "chromium.log", environment=environment)
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not port_file.exists() or "\n" not in port_file.read_text():
                assert process.alive, (directory / "chromium.log").read_text()
                await asyncio.sleep(0.05)
        port, path = port_file.read_text().split("\n")[:2]
        async with aiohttp.ClientSession() as session:
            url = f"ws://127.0.0.1:{port}{path}"
            async with session.ws_connect(url, max_msg_size=0) as socket:
                yield Browser(session, socket, url)
    finally:
        process.kill()
        scratch.cleanup()
