"""The page of a server, in a real browser; and what else it answers by HTTP: health, metrics, the model's card, tokens, TLS."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch

import continual as co
from tests.examples import browser
from tests.examples.browser import Browser
from tests.long import one_in
from tests.serving.servers import Raw, clip, close_to, network, run, server, through, wanted

EXAMPLE = Path(__file__).parents[2] / "examples" / "web"


async def got(served: Any, path: str, token: str | None = None, **options: Any) -> tuple[int, str, str]:
    """The status, content type and text of an answer."""
    url = served.url.replace("ws", "http", 1).replace("/v1/stream", path)
    request = Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})

    def ask() -> tuple[int, str, str]:
        try:
            with urlopen(request, **options) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except HTTPError as error:
            return error.code, "", error.read().decode()

    return await asyncio.to_thread(ask)


needs_browser = pytest.mark.skipif(browser.program() is None, reason=f"needs a browser: {' or '.join(browser.NAMES)}")


def text_of(name: str) -> str:
    return f"(document.getElementById('{name}')?.textContent ?? '')"  # nothing yet while the page loads


def look_at(page: Browser, url: str) -> None:
    """See what the page shows of the server, and stream waves, a microphone and a camera."""
    page.open(url)
    page.wait_for(f"{text_of('facts')}.includes('float32 (3)')", 20)
    assert "delay 2, receptive field 3" in page.evaluate(text_of("facts"))
    page.wait_for(f"{text_of('open')} == '0 of 8'", 20)
    for source in ("waves", "microphone", "camera"):
        page.evaluate(f"document.getElementById('source').value = '{source}'")
        page.evaluate("document.getElementById('start').click()")
        page.wait_for(f"{text_of('state')}.startsWith('output 1')", 40)
        page.wait_for(f"{text_of('open')} == '1 of 8'", 20)
        if source == "waves":
            page.wait_for(f"Number({text_of('rate')}) > 0", 20)
            if where := os.environ.get("CONTINUAL_SCREENSHOT"):
                time.sleep(6)
                page.screenshot(Path(where))
        page.evaluate("document.getElementById('stop').click()")
        page.wait_for(f"{text_of('state')}.startsWith('ended after ')", 20)
    assert not page.errors


@one_in(2)
@needs_browser
def test_the_page_in_a_browser(tmp_path: Path):
    async def main() -> Any:
        net = co.Sequential(co.Conv1d(3, 2, 3)).eval()
        async with server(net, torch.zeros(1, 3), rate=100) as served:
            with Browser(tmp_path) as page:
                await asyncio.to_thread(look_at, page, served.url.replace("ws", "http").replace("/v1/stream", "/"))
            return served.engine.metrics.frames

    assert run(main(), 120) > 30


@one_in(2)
@needs_browser
def test_the_javascript_client(tmp_path: Path):
    """In a browser: the outputs of a clip, exact, though connections are closed between frames."""
    script = """(async () => {
      const { Stream } = await import("/continual.js");
      const refused = await Stream.open("URL", { patience: 0.1 }).catch((e) => e.message);
      const stream = await Stream.open("URL", { token: "secret" }), found = [];
      stream.onoutput = (seq, [y]) => found.push([seq, Array.from(y)]);
      for (const [t, frame] of FRAMES.entries()) {
        if (t % 20 == 10) stream.socket?.close();
        await stream.send([Float64Array.from(frame)]);
      }
      const wrong = await stream.send([new Float32Array(3)]).catch((e) => e.message);
      await stream.finish();
      const dropping = new Stream(null, null, 0);
      dropping.inputs = [{ size: 1 }];
      dropping.kept = [[0, [Float64Array.of(0, 1, 2, 3)], 4], [4, [Float64Array.of(4, 5)], 2]];
      dropping._told({ type: "dropped", first: 1, next: 5 });
      const kept = dropping.kept.map(([seq, [x], count]) => [seq, ...x, count]);
      return { refused, wrong, found, kept, resumed: stream.resumed };
    })()"""

    def use(page: Browser, url: str) -> Any:
        page.open(url.replace("ws", "http").replace("/v1/stream", "/livez"))
        page.wait_for("document.body?.innerText.includes('ok')", 20)
        return page.evaluate(script.replace("URL", url).replace("FRAMES", json.dumps(clip(60).tolist())))

    async def main() -> Any:
        async with server(credit=4, checkpoint_every=8, tokens=["secret"]) as served:
            with Browser(tmp_path) as page:
                return await asyncio.to_thread(use, page, served.url)

    found = run(main(), 120)
    assert found["refused"] == "the server does not answer"
    assert found["wrong"] == "input 0 takes frames float64 (3)"
    assert found["resumed"] >= 2
    assert found["kept"] == [[0, 0, 1], [5, 5, 1]], "dropped frames are not sent again"
    y = np.concatenate([np.array(values).reshape(-1, 2) for _, values in found["found"]])
    close_to(y, wanted(network(), clip(60)))


@one_in(3)
@needs_browser
def test_the_page_of_another_site(tmp_path: Path):
    """`examples/web/served.html`, with the client that the server has: it is let in where its site is named."""
    files = functools.partial(SimpleHTTPRequestHandler, directory=str(EXAMPLE))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as site:
        threading.Thread(target=site.serve_forever).start()
        origin = f"http://127.0.0.1:{site.server_port}"

        def use(page: Browser, url: str) -> str:
            page.open(f"{origin}/served.html?token=secret&server={url.replace('ws', 'http').replace('/v1/stream', '')}")
            page.wait_for(f"{text_of('status')} == 'ready'", 20)
            page.evaluate("document.querySelector('button').click()")
            page.wait_for(f"/^finished|not answer/.test({text_of('status')})", 20)
            return str(page.evaluate(text_of("status")))

        async def main(origins: list[str]) -> str:
            async with server(tokens=["secret"], origins=origins) as served:
                with Browser(tmp_path / "profile") as page:
                    return await asyncio.to_thread(use, page, served.url)

        try:
            assert run(main([f"{origin}/"]), 120) == "finished: 100 frames in, 100 outputs"
        finally:
            site.shutdown()


def test_health_metrics_and_the_model():
    async def main() -> None:
        served = server()
        assert not served.engine.ready
        async with served:
            assert await got(served, "/livez") == (200, "text/plain; charset=utf-8", "ok\n")
            assert (await got(served, "/readyz"))[0] == 200
            assert (await got(served, "/nothing"))[0] == 404
            assert (await got(served, "/continual.js"))[1] == "text/javascript; charset=utf-8"
            await through(served.url, clip(30), 10)
            async with Raw(served.url) as raw:
                await raw.opened()
                await raw.socket.send("garbage")
                await raw.hear("error")
            model = json.loads((await got(served, "/v1/model"))[2])
            assert (model["shape"], model["dtype"], model["delay"], model["credit"]) == ([[3]], ["float64"], 3, 32)
            assert model["outputs"] == {"shape": [[2]], "dtype": ["float64"]}
            status, kind, text = await got(served, "/metrics")
            assert status == 200
            assert kind.startswith("text/plain")
            from prometheus_client.parser import text_string_to_metric_families as read

            found = {s.name: s.value for family in read(text) for s in family.samples if not s.labels}
            labelled = {(s.name, *s.labels.values()): s.value for family in read(text) for s in family.samples if s.labels}
            assert found["continual_frames_total"] == 30
            assert found["continual_streams_capacity"] == 8
            assert found["continual_streams_open"] == 0
            assert found["continual_compile_seconds"] > 0
            assert labelled["continual_refused_total", "protocol"] == 1
            for name in ("queue_seconds", "step_seconds", "frame_seconds", "batch_streams"):
                assert found[f"continual_{name}_count"] == labelled[f"continual_{name}_bucket", "+Inf"] > 0
            assert found["continual_frame_seconds_count"] == 30
            for name in ("streams_parked", "snapshots_total"):
                assert f"continual_{name}" in found
            served.engine.draining = True
            assert (await got(served, "/readyz"))[0] == 503
            assert (await got(served, "/livez"))[0] == 200
            served.engine.draining = False

    run(main())


def test_tokens():
    async def main() -> None:
        async with server(tokens=["one", "two"]) as served:
            for path in ("/metrics", "/v1/model", "/v1/live"):
                assert (await got(served, path))[0] == 401
                assert (await got(served, path, "three"))[0] == 401
                assert (await got(served, path, "two"))[0] == 200
                assert (await got(served, f"{path}?token=one"))[0] == 200
            for path in ("/livez", "/readyz", "/", "/app.js"):
                assert (await got(served, path))[0] == 200
            close_to(await through(served.url, clip(9), token="one"), wanted(network(), clip(9)))
            for bad in (None, "three", "on"):
                with pytest.raises(co.serve.ServeError, match="protocol: .* answers 401: a bearer token is needed"):
                    await through(served.url, clip(9), token=bad)

    run(main())


def test_other_machines_need_a_token():
    with pytest.raises(ValueError, match=r"binding to '0.0.0.0' lets everyone in .*--token-file FILE.*127\.0\.0\.1"):
        co.serve.Server(server().engine, "0.0.0.0")


def test_pages_of_other_sites_are_refused():
    async def main() -> None:
        from websockets.exceptions import InvalidStatus

        async with server() as served:
            with pytest.raises(InvalidStatus, match="403"):
                await Raw(served.url, origin="https://example.com").__aenter__()
            async with Raw(served.url, origin=f"http://127.0.0.1:{served.port}") as raw:
                await raw.opened()
        async with server(origins=["https://example.com/"]) as served:
            async with Raw(served.url, origin="https://example.com") as raw:
                await raw.opened()
            with pytest.raises(InvalidStatus, match="403"):
                await Raw(served.url, origin="http://example.com").__aenter__()

    run(main())


def test_tls(tmp_path: Path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*command, *subject, "-out", str(cert), "-keyout", str(key)], check=True, capture_output=True)

    async def main() -> None:
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(cert, key)
        async with server(tls=own) as served:
            assert served.url.startswith("wss://")
            known = ssl.create_default_context(cafile=str(cert))
            close_to(await through(served.url, clip(9), tls=known), wanted(network(), clip(9)))
            assert (await got(served, "/livez", context=known))[0] == 200
            with pytest.raises(co.serve.ServeError, match="unreachable"):
                await through(served.url, clip(9), patience=0.0)

    run(main())
