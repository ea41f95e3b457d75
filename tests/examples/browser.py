"""Headless Chromium, spoken to by its debugging protocol over a pipe: nothing but the browser is needed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # it refuses to run as root with it
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # the microphone beeps
    "--use-fake-ui-for-media-stream",  # and may be used
    "--window-size=1000,800",
    "--remote-debugging-pipe",
)


def program() -> str | None:
    """Where the browser is."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """A browser with one page, until the end of the ``with`` block.

    Args:
        profile: a folder of its own.
        flags: further ones.

    Attributes:
        errors: what went wrong in the page: exceptions that nothing caught, errors on the console, requests without an answer.
    """

    def __init__(self, profile: Path, *flags: str):
        self.errors: list[str] = []
        self._flags = (*FLAGS, *flags)
        self._profile, self._last, self._unread = profile, 0, b""

    def __enter__(self) -> Self:
        theirs_in, self._to = _pipe()
        self._from, theirs_out = _pipe()
        executable = program()
        assert executable is not None
        # The protocol is spoken on the descriptors 3 and 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash"]
        self._process = subprocess.Popen(
            [*shell, executable, *self._flags, f"--user-data-dir={self._profile}"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            target = self.call("Target.createTarget", url="about:blank", session=None)["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True, session=None)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, or of what it promises.

        Raises:
            RuntimeError: it throws.
        """
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in found:
            raise RuntimeError(_told(found["exceptionDetails"]))
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float) -> Any:
        """Evaluate again and again until it is true.

        Raises:
            TimeoutError: it never is.
        """
        until = time.monotonic() + seconds
        while not (found := self.evaluate(script)):
            if time.monotonic() > until:
                raise TimeoutError(f"not so within {seconds:g} s: {script}. Errors in the page: {self.errors}")
            time.sleep(0.05)
        return found

    def screenshot(self, path: Path) -> None:
        """Save what a user would see as a .png file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def call(self, method: str, *, session: Any = ..., **parameters: Any) -> dict[str, Any]:
        """One call of the protocol. What happened in the page meanwhile goes to ``errors``.

        Raises:
            RuntimeError: it fails, or the browser is gone.
        """
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session is ...:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (found := self._read()).get("id") != self._last:
            self._note(found)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']}")
        result: dict[str, Any] = found["result"]
        return result

    def _read(self, seconds: float = 60) -> dict[str, Any]:
        while b"\0" not in self._unread:
            if not select.select([self._from], [], [], seconds)[0]:
                raise RuntimeError(f"the browser says nothing for {seconds:g} s")
            found = os.read(self._from, 1 << 16)
            if not found:
                raise RuntimeError("the browser has ended")
            self._unread += found
        message, self._unread = self._unread.split(b"\0", 1)
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(_told(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} ({told['entry'].get('url', '')})")


def _pipe() -> tuple[int, int]:
    """Both ends, neither of them one of the descriptors that the protocol is spoken on."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


def _told(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description", details.get("text")))
