"""Reaching an event loop from another thread, and from itself."""

import threading

import anyio
from anyio.lowlevel import current_token

from talkgen._loops import call_later, call_soon


async def test_in_its_own_thread_the_function_is_called_at_once(anyio_backend):
    called = []
    call_soon(current_token(), lambda: called.append(threading.current_thread()))
    assert called == [threading.current_thread()]


async def test_from_another_thread_the_loop_calls_it(anyio_backend):
    called, token = anyio.Event(), current_token()
    with anyio.fail_after(30):
        await anyio.to_thread.run_sync(call_soon, token, called.set)
        await called.wait()


async def test_later_is_after_a_while(anyio_backend):
    called = anyio.Event()
    call_later(current_token(), 0.001, called.set)
    assert not called.is_set()
    with anyio.fail_after(30):
        await called.wait()


def test_a_loop_that_has_ended_calls_nothing(anyio_backend):
    async def own_token():
        return current_token()

    called: list[None] = []
    call_soon(anyio.run(own_token, backend=anyio_backend), lambda: called.append(None))
    assert not called
