"""How messages reach the engine: each as msgpack, and behind it the bytes of its arrays.

Pictures are megabytes. Their bytes go from the array of one process into the array of the other, through the kernel and
no other buffer, since while they arrive the engine makes no step.
"""

import os
from multiprocessing.connection import Connection

from server.messages import Add, MediaData, ToEngine, decode_to_engine, encode


def send(conn: Connection, message: ToEngine) -> None:
    """OSError where the other end has gone."""
    conn.send_bytes(encode(message))
    for medium in _media(message):
        rest = _bytes(medium)
        while rest:
            rest = rest[os.write(conn.fileno(), rest) :]


def receive(conn: Connection) -> ToEngine:
    """Waits for the next message; EOFError or OSError where the other end has gone, be it in the middle of one."""
    message = decode_to_engine(conn.recv_bytes())
    for medium in _media(message):
        rest = _bytes(medium)
        while rest:
            count = os.readv(conn.fileno(), [rest])
            if not count:
                raise EOFError
            rest = rest[count:]
    return message


def _media(message: ToEngine) -> list[MediaData]:
    return message.media if isinstance(message, Add) else []


def _bytes(medium: MediaData) -> memoryview:
    return medium.data.reshape(-1).view("uint8").data
