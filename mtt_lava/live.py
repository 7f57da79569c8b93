"""A page to look at while a stream runs: events, output spikes, the answer, latency, drops. Loopback only."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from mtt_lava.page import STYLE
from mtt_lava.stream import Stream
from netx_export.event import Answer

EVERY = 0.1
"""Seconds between two pictures."""
HOSTS = ("127.0.0.1", "localhost")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>mtt stream</title><style>%s
canvas { image-rendering: pixelated; border: 1px solid #ccc; background: #fff; }
.row { display: flex; gap: 1.5rem; flex-wrap: wrap; } #answer { font-size: 3rem; line-height: 1.2; }
td { padding: 0 .75rem 0 0; } td:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums; }
.bar { display: inline-block; height: .9em; background: #1f77b4; vertical-align: middle; }
</style></head><body><h1 id="name"></h1>
<div class="row"><div><p>events (blue ON, red OFF)</p><canvas id="events" width="1" height="1"></canvas></div>
<div><p>answer</p><p id="answer">none yet</p><table id="readout"></table></div>
<div><p>output spikes of the last two seconds</p><canvas id="spikes" width="300" height="200"></canvas></div></div>
<table id="numbers"></table><p id="state">waiting for events</p>
<script>
const by = id => document.getElementById(id), past = [];
const rows = (id, pairs) => { const t = by(id); t.replaceChildren(...pairs.map(([name, value, width]) => {
  const row = document.createElement("tr"), a = document.createElement("td"), b = document.createElement("td");
  a.textContent = name; b.textContent = value; row.append(a, b);
  if (width !== undefined) { const c = document.createElement("td"), bar = document.createElement("span");
    bar.className = "bar"; bar.style.width = 8 * width + "rem"; c.append(bar); row.append(c); }
  return row; })); };
const source = new EventSource("/stream");
source.onerror = () => { by("state").textContent = "the stream has ended"; source.close(); };
source.onmessage = message => {
  const s = JSON.parse(message.data), n = s.numbers, most = Math.max(1, ...s.readout);
  by("name").textContent = s.source;
  by("state").textContent = s.ended ? "the stream has ended" : "running";
  by("answer").textContent = s.winners.length == 1 ? s.winners[0] :
    s.winners.length ? "tied: " + s.winners.join(", ") : "silent";
  rows("readout", s.readout.map((v, i) => ["output " + i, v.toFixed(v %% 1 ? 1 : 0), Math.max(0, v) / most]));
  rows("numbers", Object.entries(n));
  const c = by("events"), g = c.getContext("2d"), raw = atob(s.picture);
  c.width = s.columns; c.height = s.rows;
  c.style.width = Math.max(160, Math.min(340, 10 * s.columns)) + "px";
  const image = g.createImageData(s.columns, s.rows);
  for (let i = 0; i < s.columns * s.rows; i++) {
    const on = raw.charCodeAt(2 * i), off = raw.charCodeAt(2 * i + 1), rest = 255 - Math.max(on, off);
    image.data.set(on > off ? [rest, rest, 255, 255] : [255, rest, rest, 255], 4 * i); }
  g.putImageData(image, 0, 0);
  past.push(s.emitted); if (past.length > 20) past.shift();
  const k = by("spikes"), h = k.getContext("2d"), high = k.height / s.emitted.length;
  h.clearRect(0, 0, k.width, k.height);
  past.forEach((emitted, x) => emitted.forEach((count, y) => { if (count) {
    h.fillStyle = `rgba(0, 0, 0, ${Math.min(1, .2 + count / 20)})`; h.fillRect(15 * x, high * y, 14, high - 1); } }));
  if (s.ended) source.close();
};
</script></body></html>
"""


class Page:
    """A page of a stream, on ``http://127.0.0.1:PORT``.

    Parameters
    ----------
    stream : Stream
        Whose ``seen`` it takes.
    port : int
        0: any that is free.

    Attributes
    ----------
    address : str
    """

    def __init__(self, stream: Stream, port: int = 0) -> None:
        self._stream, self._last, self._changed = stream, 0.0, threading.Condition()
        _, rows, columns = stream.fit.shape
        self._picture = np.zeros((rows, columns, 2), np.int64)
        self._counts = stream.session.state.counts.copy()
        self._now: dict[str, Any] | None = None
        self._ended = False
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # A page of elsewhere must not read this one through a name that leads here.
                if (self.headers.get("Host") or "").rpartition(":")[0] not in HOSTS:
                    self.send_error(403)
                elif self.path == "/":
                    self._answer("text/html; charset=utf-8", (_PAGE % STYLE).encode())
                elif self.path == "/stream":
                    page._send(self)
                else:
                    self.send_error(404)

            def _answer(self, kind: str, content: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        stream.seen = self._see

    def _see(self, stream: Stream, given: dict[str, np.ndarray], answer: Answer) -> None:
        flat = len(stream.fit.in_shape) == 1
        x, c = (given["c"], given["x"]) if flat else (given["x"], given["c"])
        np.add.at(self._picture, (given["y"], x, 1 - c), 1)  # ON first
        if time.perf_counter() - self._last >= EVERY:
            self._show(answer)

    def _show(self, answer: Answer) -> None:
        report, counts = self._stream.report, self._stream.session.state.counts
        most = max(1, int(self._picture.max()))
        rows, columns, _ = self._picture.shape
        # After a reset counts start again.
        emitted = np.where(counts >= self._counts, counts - self._counts, counts)
        latency = {name: value and round(value, 3) for name, value in report.latencies.to_dict().items()}
        numbers = {
            "events": report.events,
            "waiting": self._stream.queue.waiting,
            "dropped, queue full": report.dropped,
            "outside, late": report.outside + report.late,
            "clock set back": report.jumps,
            "latency, median ms": latency["median_ms"],
            "latency, 99 % ms": latency["p99_ms"],
            "latency, worst ms": latency["worst_ms"],
            "stream, s": round(report.stream_seconds, 1),
            "synaptic operations": report.synops,
        }
        now = {
            "source": report.source,
            "ended": self._ended,
            "winners": list(answer.winners),
            "readout": answer.readout.tolist(),
            "emitted": emitted.tolist(),
            "picture": base64.b64encode((self._picture * 255 // most).astype(np.uint8).tobytes()).decode(),
            "columns": columns,
            "rows": rows,
            "numbers": numbers,
        }
        self._picture.fill(0)
        self._counts, self._last = counts.copy(), time.perf_counter()
        with self._changed:
            self._now = now
            self._changed.notify_all()

    def _send(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Cache-Control", "no-store")
        handler.end_headers()
        shown = None
        while True:
            with self._changed:
                while self._now is shown:
                    self._changed.wait()
                shown = self._now
            assert shown is not None
            try:
                handler.wfile.write(f"data: {json.dumps(shown)}\n\n".encode())
                handler.wfile.flush()
            except OSError:  # nobody looks any more
                return
            if shown["ended"]:
                return

    def end(self, answer: Answer | None) -> None:
        """Show the last answer, and that it is the last; give those who look a moment to get it."""
        self._ended = True
        self._show(answer or self._stream.session.answer())
        time.sleep(2 * EVERY)
        self._server.shutdown()
        self._server.server_close()
