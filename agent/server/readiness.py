"""Waiting for a descriptor without blocking the loop."""

from __future__ import annotations

import asyncio


async def readable(fd: int) -> None:
    """Returns once `fd` is readable. Registered only while waited for: registrations are
    level-triggered, so one that outlives the wait would spin the loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _wake, future)
    try:
        await future
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Returns once `fd` is writable."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _wake, future)
    try:
        await future
    finally:
        loop.remove_writer(fd)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
