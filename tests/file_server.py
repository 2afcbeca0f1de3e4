"""A local HTTP server that serves bytes and misbehaves as told."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Files by path, and what to do to the next requests; the rest is served well.

    Attributes
    ----------
    files
        Content by path, such as ``/a.bin``.
    faults
        Taken one a request: a status to answer with, or ``("drop", n)`` to close the
        connection after n bytes of the body, or ``("stall", event)`` to send half of the
        body and wait for the event.
    resumes
        Whether Range requests are honoured.
    encoding
        Sent as Content-Encoding, as some servers do for every ``.gz``.
    ranges
        The Range header of each request that came, empty where it had none.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[int | tuple[str, object]] = field(default_factory=list)
    resumes: bool = True
    encoding: str = ""
    ranges: list[str] = field(default_factory=list)

    def __enter__(self) -> FileServer:
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client was killed
                    served._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.ranges.append(wanted)
        fault = self.faults.pop(0) if self.faults else 200
        if isinstance(fault, int) and fault != 200:
            request.send_error(fault)
            return
        if request.path not in self.files:
            request.send_error(404)
            return
        content = self.files[request.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.resumes else 0
        if start and start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = content[start:]
        request.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            request.send_header("Content-Range", span)
        if self.encoding:
            request.send_header("Content-Encoding", self.encoding)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        self._send(request, body, fault)

    def _send(self, request: BaseHTTPRequestHandler, body: bytes, fault: object) -> None:
        match fault:
            case ("drop", int(count)):
                request.wfile.write(body[:count])
            case ("stall", threading.Event() as event):
                request.wfile.write(body[: len(body) // 2])
                request.wfile.flush()
                event.wait(30)
            case _:
                request.wfile.write(body)
        request.close_connection = True
