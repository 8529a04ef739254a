"""Every bound of the server in one place (security C16). Times in seconds, sizes in bytes."""

from __future__ import annotations

from agent.values import frozen


@frozen(slots=True)
class Limits:
    handshake: float = 10.0  # from accept to a verified client certificate
    head: float = 10.0  # from accept, or a request's first byte, to the end of its head
    idle: float = 300.0  # between two requests on one connection
    json_body: float = 30.0  # for the whole of a JSON body
    body_stall: float = (
        900.0  # between two pieces of a streamed body; a human may be piping into it
    )
    linger: float = 2.0  # for the client to close after we have sent everything
    liveness: float = 2.0  # between two looks whether a silent hijacked client still exists
    stall: float = 10.0  # for which an attached client may take nothing of what a container says
    shutdown: float = 10.0  # for requests in flight when the server stops

    per_address: int = 256  # TLS connections from one address
    total: int = 16384
    handshakes: int = 1024  # connections that have not proven who they are

    workers: int = 32  # threads for handlers
    producers: int = 32  # threads for uploads and blocking streams
    stream_buffer: int = 1024 * 1024  # between the loop and a worker, each way, each request
    discard: int = 256 * 1024  # of an unwanted body that is read to keep the connection


READ_SIZE = 65536
