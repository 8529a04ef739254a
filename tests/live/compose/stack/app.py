"""The web application: POST / queues the words of the body; GET / lists what workers have done."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from wire import Postgres, Redis  # type: ignore[import-not-found]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            self._say({"redis": Redis(os.environ["REDIS"])("PING")})
            return
        query = "SELECT word, length, worker FROM done ORDER BY word"
        self._say(
            {"host": os.uname().nodename, "done": Postgres(os.environ["POSTGRES"]).rows(query)}
        )

    def do_POST(self) -> None:
        words = self.rfile.read(int(self.headers["Content-Length"])).decode().split()
        redis = Redis(os.environ["REDIS"])
        for word in words:
            redis("RPUSH", "jobs", word)
        self._say({"queued": len(words), "for": self.headers["X-Forwarded-For"]})

    def _say(self, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("listening", flush=True)
ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
