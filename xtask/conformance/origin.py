"""The service behind the proxies: HTTP/1.1 with a WebSocket echo, and gRPC. Arguments: the two ports."""

import asyncio
import logging
import sys
import threading
from concurrent import futures

import grpc
from aiohttp import WSMsgType, web

HUGE = b"x" * (4 << 20)
PAGE = """<!doctype html><title>waiting</title><pre id=said></pre><script>
const said = {};
async function all() {
  const answer = await fetch('/echo', { method: 'POST', body: 'x'.repeat(50000) });
  said.fetch = answer.status + ' ' + (await answer.text()).length;
  said.proto = performance.getEntriesByType('navigation')[0].nextHopProtocol;
  said.many = (await Promise.all([...Array(50).keys()].map(n => fetch('/hello?' + n))))
    .filter(answer => answer.status == 200).length;
  said.ws = await new Promise((done, failed) => {
    const socket = new WebSocket('wss://' + location.host + '/ws');
    socket.onopen = () => socket.send('hello');
    socket.onmessage = event => { done(event.data); socket.close(); };
    socket.onerror = () => failed('no WebSocket');
  });
}
all().catch(error => said.error = String(error))
  .finally(() => document.getElementById('said').textContent = 'said ' + JSON.stringify(said));
</script>"""


async def hello(_request):
    return web.Response(text="hello")


async def echo(request):
    return web.Response(body=await request.read())


async def big(_request):
    return web.Response(body=b"x" * (1 << 20))


async def huge(_request):
    return web.Response(body=HUGE)


async def page(_request):
    return web.Response(text=PAGE, content_type="text/html")


async def chat(request):
    socket = web.WebSocketResponse(max_msg_size=64 << 20, autoping=True, compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


class Echo:
    """Methods over plain bytes, so that nothing has to be compiled."""

    @staticmethod
    def unary(request, context):
        said = context.invocation_metadata()
        context.set_trailing_metadata(tuple(one for one in said if one[0].startswith("say-")))
        if request.startswith(b"fail "):
            code = next(c for c in grpc.StatusCode if c.value[0] == int(request[5:]))
            context.abort(code, "as wished: ü")
        return request

    @staticmethod
    def hang(_request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(20)
        Echo.cancelled += 1
        return b""

    cancelled = 0

    @staticmethod
    def count(_request, _context):
        return str(Echo.cancelled).encode()

    @staticmethod
    def down(request, _context):
        for n in range(int(request)):
            yield str(n).encode()

    @staticmethod
    def up(requests, _context):
        return str(sum(len(request) for request in requests)).encode()

    @staticmethod
    def both(requests, _context):
        yield from requests


def serve_grpc(port):
    server = grpc.server(
        futures.ThreadPoolExecutor(64),
        options=[("grpc.max_receive_message_length", 64 << 20)],
    )
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(Echo.unary),
        "Hang": grpc.unary_unary_rpc_method_handler(Echo.hang),
        "Count": grpc.unary_unary_rpc_method_handler(Echo.count),
        "Down": grpc.unary_stream_rpc_method_handler(Echo.down),
        "Up": grpc.stream_unary_rpc_method_handler(Echo.up),
        "Both": grpc.stream_stream_rpc_method_handler(Echo.both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


async def main(http_port, grpc_port):
    server = serve_grpc(grpc_port)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_get("/ws", chat)
    app.router.add_get("/page", page)
    app.router.add_get("/big", big)
    app.router.add_get("/huge", huge)
    app.router.add_route("*", "/echo", echo)
    app.router.add_route("*", "/{rest:.*}", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", http_port, backlog=4096).start()
    print("ready", flush=True)
    await asyncio.Event().wait()
    server.stop(0)


logging.disable(logging.CRITICAL)
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
