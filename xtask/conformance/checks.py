"""What is asked of a proxy by clients that others wrote. Each check has an area, a tool, what is expected,
and a function that raises when it does not come true; what it returns is the figure beside the verdict."""

import asyncio
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

CHECKS = []


def check(area, tool, expected):
    def add(function):
        CHECKS.append((area, tool, expected, function))
        return function
    return add


class Skipped(Exception):
    """The tool is not here."""


def need(*names):
    for name in names:
        if found := shutil.which(name):
            return found
    raise Skipped(f"{names[0]} is not installed")


def run(*words, seconds=120, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          timeout=seconds, errors="replace", check=False, **more)
    return done.returncode, done.stdout, done.stderr


def same(found, wanted):
    assert found == wanted, f"{found!r} instead of {wanted!r}"


# === HTTP clients ===

BODY = "x" * 100_000


@check("HTTP", "curl", "GET, POST, 1 MiB, HEAD over HTTP/1.0, 1.1, 2 and h2 inside TLS: 200 each")
def curl(proxy):
    count = 0
    for version, url, proto in [
        ("--http1.0", f"http://localhost:{proxy.plain}", ("1", "1.0", "1.1")),
        ("--http1.1", f"http://localhost:{proxy.plain}", ("1.1",)),
        ("--http1.1", f"https://localhost:{proxy.tls}", ("1.1",)),
        ("--http2", f"https://localhost:{proxy.tls}", ("2",)),
    ]:
        for words, path, size in [([], "/hello", 5), (["-d", BODY], "/echo", len(BODY)),
                                  ([], "/big", 1 << 20), (["-I"], "/hello", 0),
                                  (["-d", BODY, "-H", "Transfer-Encoding: chunked"], "/echo", len(BODY))]:
            if "chunked" in str(words) and version != "--http1.1":
                continue
            code, out, err = run(need("curl"), "-s", "-S", version, "--cacert", proxy.ca, *words, "-o",
                                 "/dev/null", "-w", "%{http_code} %{http_version} %{size_download}",
                                 url + path)
            status, said, got = out.split()
            assert code == 0 and status == "200" and said in proto, f"{version} {path}: {out} {err}"
            same(int(got), size)
            count += 1
    return f"{count} transfers"


@check("HTTP", "Python requests", "GET, POST, 1 MiB, 50 on one connection: 200 each")
def python_requests(proxy):
    import requests
    for base in (f"http://localhost:{proxy.plain}", f"https://localhost:{proxy.tls}"):
        with requests.Session() as session:
            session.verify, session.trust_env = proxy.ca, False
            same(session.post(base + "/echo", data=BODY).text, BODY)
            same(len(session.get(base + "/big").content), 1 << 20)
            for _ in range(50):
                same(session.get(base + "/hello").text, "hello")
    return "104 transfers"


@check("HTTP", "Python httpx", "200 parallel requests over one HTTP/2 connection: 200 each")
def python_httpx(proxy):
    import httpx

    async def ask():
        context = ssl.create_default_context(cafile=proxy.ca)
        async with httpx.AsyncClient(http2=True, verify=context) as client:
            base = f"https://localhost:{proxy.tls}"
            answers = await asyncio.gather(*(client.get(f"{base}/hello?{n}") for n in range(200)))
            for answer in answers:
                same((answer.status_code, answer.http_version, answer.text), (200, "HTTP/2", "hello"))
            same((await client.post(base + "/echo", content=BODY)).text, BODY)
            same(len((await client.get(base + "/big")).content), 1 << 20)
    asyncio.run(ask())
    return "202 transfers"


@check("HTTP", "Python aiohttp", "200 requests over up to 100 connections, chunked uploads: 200 each")
def python_aiohttp(proxy):
    import aiohttp

    async def pieces():
        for _ in range(20):
            yield b"y" * 5000

    async def ask():
        async with aiohttp.ClientSession() as session:
            async def one(path, **more):
                async with session.request("POST", f"http://localhost:{proxy.plain}{path}", **more) as a:
                    return a.status, len(await a.read())
            same(set(await asyncio.gather(*(one("/hello") for _ in range(200)))), {(200, 5)})
            same(await one("/echo", data=pieces()), (200, 100_000))
    asyncio.run(ask())
    return "201 transfers"


NODE = """
const http2 = require('http2'), fs = require('fs');
const { fetch, Agent, setGlobalDispatcher } = require('undici');
const [plain, tls, ca] = process.argv.slice(1);
setGlobalDispatcher(new Agent({ allowH2: true, connect: { ca: fs.readFileSync(ca) } }));
(async () => {
  for (const base of [`http://localhost:${plain}`, `https://localhost:${tls}`]) {
    const body = 'x'.repeat(100000);
    const echo = await fetch(base + '/echo', { method: 'POST', body });
    if (echo.status != 200 || (await echo.text()) != body) throw Error('echo');
    if ((await (await fetch(base + '/big')).arrayBuffer()).byteLength != 1 << 20) throw Error('big');
    const all = await Promise.all([...Array(100).keys()].map(n => fetch(base + '/hello?' + n)));
    for (const one of all) if ((await one.text()) != 'hello') throw Error('hello');
  }
  const session = http2.connect(`https://localhost:${tls}`, { ca: fs.readFileSync(ca) });
  await Promise.all([...Array(50).keys()].map(n => new Promise((done, failed) => {
    const stream = session.request({ ':path': '/hello' }).setEncoding('utf8');
    let text = '';
    stream.on('data', part => text += part).on('error', failed)
      .on('end', () => text == 'hello' ? done() : failed(Error(text)));
  })));
  session.close();
  process.exit(0);
})().catch(error => { console.error(error); process.exit(1); });
"""


def node(proxy, script, *words):
    modules = f"{sys.prefix}/node_modules"
    code, out, err = run(need("node"), "-e", script, "--", *words,
                         env={**os.environ, "NODE_PATH": modules})
    assert code == 0, err[-400:] or out[-400:]
    return out.strip()


@check("HTTP", "Node.js undici and http2", "fetch over HTTP/1.1 and h2, 50 streams of http2: 200 each")
def node_fetch(proxy):
    node(proxy, NODE, proxy.plain, proxy.tls, proxy.ca)
    return "254 transfers"


GO = """package main
import ("bytes"; "crypto/tls"; "crypto/x509"; "fmt"; "io"; "net/http"; "os"; "sync")
func main() {
  pem, _ := os.ReadFile(os.Args[3]); pool := x509.NewCertPool(); pool.AppendCertsFromPEM(pem)
  for _, h2 := range []bool{false, true} {
    transport := &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: pool}}
    client := &http.Client{Transport: transport}
    base, proto := "http://localhost:"+os.Args[1], "HTTP/1.1"
    if h2 { base, proto = "https://localhost:"+os.Args[2], "HTTP/2.0" }
    var wait sync.WaitGroup
    for n := 0; n < 100; n++ { wait.Add(1); go func() { defer wait.Done()
      answer, err := client.Post(base+"/echo", "text/plain", bytes.NewReader(make([]byte, 50000)))
      if err != nil { fmt.Println(err); os.Exit(1) }
      body, err := io.ReadAll(answer.Body)
      if err != nil || answer.StatusCode != 200 || answer.Proto != proto || len(body) != 50000 {
        fmt.Println(answer.Status, answer.Proto, len(body), err); os.Exit(1) }
    }() }
    wait.Wait()
  }
}
"""


@check("HTTP", "Go net/http", "100 parallel uploads over HTTP/1.1 and over h2: 200 each")
def go(proxy):
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/main.go", "w", encoding="ascii") as file:
            file.write(GO)
        env = {**os.environ, "GOCACHE": f"{sys.prefix}/go-cache", "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
        code, out, err = run(need("go"), "run", f"{folder}/main.go", proxy.plain, proxy.tls, proxy.ca,
                             env=env, seconds=300)
    assert code == 0, (out + err)[-400:]
    return "200 transfers"


@check("HTTP", "PHP curl", "GET and POST over TLS: 200")
def php(proxy):
    script = """
      foreach ([['/hello', null, 5], ['/echo', str_repeat('x', 100000), 100000]] as [$path, $body, $size]) {
        $c = curl_init("https://localhost:$argv[1]$path");
        curl_setopt_array($c, [CURLOPT_RETURNTRANSFER => 1, CURLOPT_CAINFO => $argv[2]]);
        if ($body) curl_setopt($c, CURLOPT_POSTFIELDS, $body);
        $got = curl_exec($c);
        if (curl_getinfo($c, CURLINFO_HTTP_CODE) != 200 || strlen($got) != $size) exit(1);
      }"""
    code, out, err = run(need("php"), "-r", script, "--", proxy.tls, proxy.ca)
    assert code == 0, out + err
    return "2 transfers"


@check("HTTP", "Ruby net/http", "GET and chunked POST over TLS: 200")
def ruby(proxy):
    script = """
      require 'net/http'; require 'stringio'
      http = Net::HTTP.new('localhost', ARGV[0].to_i); http.use_ssl = true; http.ca_file = ARGV[1]
      http.start do
        abort 'get' unless http.get('/hello').body == 'hello'
        post = Net::HTTP::Post.new('/echo'); post['Transfer-Encoding'] = 'chunked'
        post.body_stream = StringIO.new('x' * 100000); post['Content-Type'] = 'text/plain'
        abort 'post' unless http.request(post).body.size == 100000
      end"""
    code, out, err = run(need("ruby"), "-e", script, proxy.tls, proxy.ca)
    assert code == 0, out + err
    return "2 transfers"


@check("HTTP", "Perl HTTP::Tiny", "GET and POST: 200")
def perl(proxy):
    script = ("use HTTP::Tiny; my $b='http://localhost:'.shift; my $h=HTTP::Tiny->new;"
              "die 'get' unless $h->get(\"$b/hello\")->{content} eq 'hello';"
              "die 'post' unless length($h->post(\"$b/echo\",{content=>'x'x100000})->{content})==100000;")
    code, out, err = run(need("perl"), "-e", script, proxy.plain)
    assert code == 0, out + err
    return "2 transfers"


# === HTTP/2 ===

@check("HTTP/2", "nghttp", "20 requests with windows of 2^14 and padding; no reset, no error")
def nghttp(proxy):
    code, out, err = run(need("nghttp"), "-nv", "-w14", "-W14", "-b", "64", "-m20", f"https://localhost:{proxy.tls}/big")
    same((code, out.count(":status: 200"), out.count("RST_STREAM")), (0, 20, 0))
    return "20 transfers of 1 MiB"


@check("HTTP/2", "h2load", "5,000 requests over 20 connections of 50 streams: all 2xx, none fails")
def h2load(proxy):
    _, out, _ = run(need("h2load"), "-n5000", "-c20", "-m50", f"https://localhost:{proxy.tls}/hello", seconds=300)
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", out)
    same(done.groups(), ("5000", "0", "0"))
    same(re.search(r"status codes: (\d+) 2xx", out).group(1), "5000")
    return re.search(r"finished in ([^,]*)", out).group(1)


def h2_connection(proxy):
    import socket
    import h2.config
    import h2.connection
    context = ssl.create_default_context(cafile=proxy.ca)
    context.set_alpn_protocols(["h2"])
    stream = context.wrap_socket(socket.create_connection(("localhost", proxy.tls)), server_hostname="localhost")
    stream.settimeout(10)
    config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False,
                                       normalize_outbound_headers=False)
    connection = h2.connection.H2Connection(config=config)
    connection.initiate_connection()
    stream.sendall(connection.data_to_send())
    return stream, connection


def frames_case(proxy, act):
    """What the peer answers to what `act` gives: `reset`, `goaway`, `closed`, or a status."""
    import hpack
    stream, connection = h2_connection(proxy)
    data = b""
    try:
        stream.sendall(act(connection))
        while True:
            more = stream.recv(65536)
            if not more:
                return "closed"
            data += more
            while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
                length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
                payload, data = data[9:9 + length], data[9 + length:]
                if kind in (3, 7):
                    return {3: "reset", 7: "goaway"}[kind]
                if kind == 1:
                    return dict(hpack.Decoder().decode(payload))[":status"]
                if kind == 4 and not flags & 1:
                    stream.sendall(frames(4, 1, 0))
    except (ConnectionError, ssl.SSLError):
        return "closed"
    except TimeoutError:
        return "silence"
    finally:
        stream.close()


def frames(kind, flags, stream, payload=b""):
    return (len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)


def request(connection, *extra, method="GET", drop=(), path="/hello", end=True):
    headers = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
    headers = [pair for pair in headers if pair[0] not in drop] + list(extra)
    connection.send_headers(1, headers, end_stream=end)
    return connection.data_to_send()


def raw_request(block_extra=b"", flags=5, stream=1):
    block = b"\x82\x87\x84\x41\x09localhost" + block_extra
    return frames(1, flags, stream, block)


# RFC 9113's section, what is sent, and which of the answers are right.
CONNECTION = {"goaway", "closed"}
STREAM = CONNECTION | {"reset"}
MALFORMED = STREAM | {"400"}
CASES = [
    ("3.4 a preface that is none", None, CONNECTION),
    ("4.2 a frame above the largest size", lambda c: frames(0, 0, 1, b"x" * 16385), CONNECTION),
    ("4.3 a field block that cannot be decoded", lambda c: frames(1, 5, 1, b"\xff\xff\xff\xff\xff"), CONNECTION),
    ("5.1 DATA on an idle stream", lambda c: frames(0, 1, 1, b"x"), CONNECTION),
    ("5.1 RST_STREAM on an idle stream", lambda c: frames(3, 0, 1, b"\0\0\0\x08"), CONNECTION),
    ("5.1 WINDOW_UPDATE on an idle stream", lambda c: frames(8, 0, 1, b"\0\0\0\x08"), CONNECTION),
    ("5.1.1 a stream of an even number", lambda c: raw_request(stream=2), CONNECTION),
    ("5.1.1 a stream below an earlier one", lambda c: raw_request(stream=5, flags=4) + raw_request(stream=3), CONNECTION | {"200"}),
    ("6.1 DATA on stream 0", lambda c: frames(0, 1, 0, b"x"), CONNECTION),
    ("6.1 padding longer than the payload", lambda c: raw_request(flags=4) + frames(0, 9, 1, b"\x09x"), CONNECTION),
    ("6.2 HEADERS on stream 0", lambda c: raw_request(stream=0), CONNECTION),
    ("6.3 PRIORITY on stream 0", lambda c: frames(2, 0, 0, b"\0\0\0\0\x01"), CONNECTION),
    ("6.4 RST_STREAM on stream 0", lambda c: frames(3, 0, 0, b"\0\0\0\x08"), CONNECTION),
    ("6.4 RST_STREAM of three bytes", lambda c: raw_request(flags=4) + frames(3, 0, 1, b"\0\0\x08"), CONNECTION),
    ("6.5 SETTINGS with ACK and a payload", lambda c: frames(4, 1, 0, b"\0\x03\0\0\0\x09"), CONNECTION),
    ("6.5 SETTINGS on a stream", lambda c: frames(4, 0, 1, b""), CONNECTION),
    ("6.5 SETTINGS of five bytes", lambda c: frames(4, 0, 0, b"\0\x03\0\0\0"), CONNECTION),
    ("6.5.2 ENABLE_PUSH of 2", lambda c: frames(4, 0, 0, b"\0\x02\0\0\0\x02"), CONNECTION),
    ("6.5.2 a window above 2^31-1", lambda c: frames(4, 0, 0, b"\0\x04\x80\0\0\0"), CONNECTION),
    ("6.5.2 a frame size below 2^14", lambda c: frames(4, 0, 0, b"\0\x05\0\0\x3f\xff"), CONNECTION),
    ("6.6 PUSH_PROMISE from a client", lambda c: frames(5, 4, 1, b"\0\0\0\x02\x82"), CONNECTION),
    ("6.7 PING of six bytes", lambda c: frames(6, 0, 0, b"123456"), CONNECTION),
    ("6.7 PING on a stream", lambda c: frames(6, 0, 1, b"12345678"), CONNECTION),
    ("6.8 GOAWAY on a stream", lambda c: frames(7, 0, 1, b"\0" * 8), CONNECTION),
    ("6.9 WINDOW_UPDATE of 0 on the connection", lambda c: frames(8, 0, 0, b"\0\0\0\0"), CONNECTION),
    ("6.9 WINDOW_UPDATE of three bytes", lambda c: frames(8, 0, 0, b"\0\0\x01"), CONNECTION),
    ("6.9.1 a connection's window above 2^31-1", lambda c: frames(8, 0, 0, b"\x7f\xff\xff\xff") * 2, CONNECTION),
    ("6.9.1 a stream's window above 2^31-1", lambda c: raw_request(flags=4) + frames(8, 0, 1, b"\x7f\xff\xff\xff") * 2, STREAM),
    ("6.10 CONTINUATION after nothing", lambda c: frames(9, 4, 1, b"\x82"), CONNECTION),
    ("6.10 another frame amid a field block", lambda c: raw_request(flags=1) + frames(6, 0, 0, b"12345678"), CONNECTION),
    ("8.1.1 DATA that is not what content-length says", lambda c: request(c, ("content-length", "9"), method="POST", end=False) + frames(0, 1, 1, b"x"), MALFORMED),
    ("8.2.1 capital letters in a name", lambda c: request(c, ("X-Capital", "1")), MALFORMED),
    ("8.2.2 connection", lambda c: request(c, ("connection", "close")), MALFORMED),
    ("8.2.2 transfer-encoding", lambda c: request(c, ("transfer-encoding", "chunked")), MALFORMED),
    ("8.2.2 te other than trailers", lambda c: request(c, ("te", "gzip")), MALFORMED),
    ("8.3 an unknown pseudo-header field", lambda c: request(c, (":test", "1")), MALFORMED),
    ("8.3 a pseudo-header field after others", lambda c: request(c, ("x", "1"), (":path", "/"), drop=(":path",)), MALFORMED),
    ("8.3 :status in a request", lambda c: request(c, (":status", "200")), MALFORMED),
    ("8.3.1 no :method", lambda c: request(c, drop=(":method",)), MALFORMED),
    ("8.3.1 no :scheme", lambda c: request(c, drop=(":scheme",)), MALFORMED),
    ("8.3.1 no :path", lambda c: request(c, drop=(":path",)), MALFORMED),
    ("8.3.1 an empty :path", lambda c: request(c, path=""), MALFORMED),
    ("8.3.1 :method twice", lambda c: request(c, (":method", "GET")), MALFORMED),
    ("5.5 an unknown frame is passed over", lambda c: frames(0xbb, 0, 0, b"x") + request(c), {"200"}),
    ("6.5.2 an unknown setting is passed over", lambda c: frames(4, 0, 0, b"\xfa\xce\0\0\0\x09") + request(c), {"200"}),
    ("6.10 a head in three frames", lambda c: frames(1, 1, 1, b"\x82\x87") + frames(9, 0, 1, b"\x84") + frames(9, 4, 1, b"\x41\x09localhost"), {"200"}),
]


@check("HTTP/2", "Python h2", f"{len(CASES)} cases of RFC 9113, read by another stack: the error or answer it demands")
def rfc9113(proxy):
    wrong = []
    for name, act, right in CASES:
        if act is None:
            import socket
            context = ssl.create_default_context(cafile=proxy.ca)
            context.set_alpn_protocols(["h2"])
            with context.wrap_socket(socket.create_connection(("localhost", proxy.tls)), server_hostname="localhost") as s:
                s.settimeout(15)
                s.sendall(b"INVALID CONNECTION PREFACE\r\n\r\n")
                try:
                    while s.recv(65536):
                        pass
                    found = "closed"
                except (ConnectionError, ssl.SSLError):
                    found = "closed"
                except TimeoutError:
                    found = "silence"
        else:
            found = frames_case(proxy, act)
        if found not in right:
            wrong.append(f"{name}: {found}")
    assert not wrong, f"{len(wrong)} of {len(CASES)}: " + "; ".join(wrong)
    return f"{len(CASES)} of {len(CASES)}"


# === WebSocket ===

@check("WebSocket", "Autobahn fuzzing client", "cases 1 to 7 (but 7.9.5, which the service fails alone), 9.1, 9.2, 9.7 and 10: every one passes")
def autobahn(proxy):
    import autobahn_here
    return autobahn_here.run(proxy)


@check("WebSocket", "Python websockets", "text, 8 MiB binary, ping, 100 connections, close 1000")
def python_websockets(proxy):
    import websockets

    async def one(url, **more):
        async with websockets.connect(url, max_size=None, proxy=None, **more) as socket:
            await socket.send("hello")
            same(await socket.recv(), "hello")
            await (await socket.ping())
            return socket

    async def ask():
        context = ssl.create_default_context(cafile=proxy.ca)
        url = f"ws://localhost:{proxy.plain}/ws"
        await asyncio.gather(*(one(url) for _ in range(100)))
        socket = await one(f"wss://localhost:{proxy.tls}/ws", ssl=context)
        same(socket.close_code, 1000)
        async with websockets.connect(url, max_size=None, proxy=None) as socket:
            large = os.urandom(8 << 20)
            await socket.send(large)
            same(await socket.recv() == large, True)
    asyncio.run(ask())
    return "102 connections"


@check("WebSocket", "Node.js ws", "messages of 0 to 1 MiB come back whole and in order")
def node_ws(proxy):
    node(proxy, """
      const WebSocket = require('ws'), [port] = process.argv.slice(1).filter(w => /^\\d+$/.test(w));
      const sizes = [0, 1, 125, 126, 65535, 65536, 1 << 20], socket = new WebSocket(`ws://localhost:${port}/ws`);
      let next = 0;
      socket.on('open', () => sizes.forEach(size => socket.send(Buffer.alloc(size, 7))));
      socket.on('message', data => {
        if (data.length != sizes[next++]) process.exit(1);
        if (next == sizes.length) socket.close(1000);
      });
      socket.on('close', code => process.exit(code == 1000 && next == sizes.length ? 0 : 1));
      socket.on('error', error => { console.error(error); process.exit(1); });""", proxy.plain)
    return "7 messages"


# === gRPC ===

@check("gRPC", "grpcio", "unary, three ways of streaming, metadata, 4 MiB, deadline, cancellation, 16 status codes")
def grpcio(proxy):
    import grpc
    with open(proxy.ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_http_proxy", 0)]
    done = 0
    with grpc.secure_channel(f"localhost:{proxy.tls}", credentials, options=options) as channel:
        call = lambda kind, name: getattr(channel, kind)(f"/test.Echo/{name}")
        unary = call("unary_unary", "Unary")
        same(unary(b"hello", timeout=10), b"hello")
        large = os.urandom(4 << 20)
        same(unary(large, timeout=60) == large, True)
        _, made = unary.with_call(b"x", metadata=(("say-more", "yes"), ("say-bin", b"\0\xff")), timeout=10)
        same(dict(made.trailing_metadata()).get("say-bin"), b"\0\xff")
        for code in grpc.StatusCode:
            if code is grpc.StatusCode.OK:
                continue
            try:
                unary(b"fail %d" % code.value[0], timeout=10)
                raise AssertionError(f"{code} came as a success")
            except grpc.RpcError as error:
                same((error.code(), error.details()), (code, "as wished: ü"))
            done += 1
        same(len(list(call("unary_stream", "Down")(b"10000", timeout=60))), 10000)
        same(call("stream_unary", "Up")((b"x" * 100 for _ in range(10000)), timeout=60), b"1000000")
        same(list(call("stream_stream", "Both")((b"%d" % n for n in range(2000)), timeout=60)),
             [b"%d" % n for n in range(2000)])
        hang, count = call("unary_unary", "Hang"), call("unary_unary", "Count")
        before = int(count(b"", timeout=10))
        begun = time.monotonic()
        try:
            hang(b"", timeout=1)
        except grpc.RpcError as error:
            same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        assert time.monotonic() - begun < 5
        future = hang.future(b"", timeout=15)
        time.sleep(0.5)
        future.cancel()
        end = time.monotonic() + 10
        while int(count(b"", timeout=10)) < before + 2:
            assert time.monotonic() < end, "the service was not told of deadline and cancellation"
            time.sleep(0.1)
        calls = [unary.future(b"%d" % n, timeout=30) for n in range(500)]
        same([one.result() for one in calls], [b"%d" % n for n in range(500)])
    return f"{done + 510} calls"


# === TLS ===

@check("TLS", "sslscan", "TLS 1.2 and 1.3 alone, no compression, no Heartbleed, strong ciphers alone")
def sslscan(proxy):
    _, out, _ = run(need("sslscan"), "--no-colour", f"localhost:{proxy.tls}")
    enabled = re.findall(r"^(SSLv\d|TLSv1\.\d)\s+enabled", out, re.M)
    same(enabled, ["TLSv1.2", "TLSv1.3"])
    assert "Compression disabled" in out or "OpenSSL version does not support compression" in out, out[-300:]
    assert not re.search(r"vulnerable to heartbleed", re.sub("not vulnerable", "", out)), "Heartbleed"
    weak = [line for line in out.splitlines() if re.match(r"(Preferred|Accepted)", line)
            and re.search(r"RC4|DES|MD5|NULL|EXP|anon|CBC|-SHA\b| (40|56|112) bits", line)]
    assert not weak, f"{len(weak)} weak ciphers: " + weak[0].strip()
    return f"{len(re.findall('^(?:Preferred|Accepted)', out, re.M))} cipher suites"


@check("TLS", "testssl.sh", "no finding of a severity above LOW in protocols, ciphers and vulnerabilities")
def testssl(proxy):
    with tempfile.TemporaryDirectory() as folder:
        report = f"{folder}/report.json"
        run(need("testssl", "testssl.sh"), "--quiet", "--color", "0", "--warnings", "batch", "-p", "-s", "-f",
            "-U", "--jsonfile", report, f"localhost:{proxy.tls}", seconds=600)
        with open(report, encoding="utf-8") as file:
            found = json.load(file)
    bad = [f"{item['id']}: {item['finding'][:60]}" for item in found
           if item["severity"] in ("MEDIUM", "HIGH", "CRITICAL")]
    assert not bad, "; ".join(bad)
    return f"{len(found)} findings, none bad"


@check("TLS", "sslyze", "Mozilla's intermediate profile, but for what a test certificate cannot have")
def sslyze(proxy):
    code, out, err = run(sys.executable, "-m", "sslyze", "--mozilla_config=intermediate",
                         f"localhost:{proxy.tls}", seconds=300)
    text = out[out.rfind("COMPLIANCE AGAINST"):]
    assert "Mozilla" in text or "MOZILLA" in text, (out + err)[-300:]
    wrong = re.findall(r"\* (\w+): (.*)", text)
    wrong = [f"{key}: {value[:90]}" for key, value in wrong
             if key not in ("certificate_path_validation", "maximum_certificate_lifespan", "certificate_hostname_validation")]
    assert not wrong, "; ".join(wrong)
    return "compliant"


# === A browser ===

@check("Browser", "Chromium", "a page over h2, a POST by fetch, 50 at once, a WebSocket inside TLS")
def chromium(proxy):
    said = None
    # Chromium's virtual time runs ahead of a busy machine now and then.
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            _, out, err = run(need("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu",
                              "--disable-background-networking", "--no-first-run", "--disable-dev-shm-usage",
                              "--ignore-certificate-errors", f"--user-data-dir={folder}", "--timeout=15000",
                              "--virtual-time-budget=20000",
                              "--dump-dom", f"https://localhost:{proxy.tls}/page", seconds=120,
                              env={**os.environ, "HOME": folder})
        said = re.search(r"<pre id=\"said\">said (\{.*?\})", out)
        if said:
            break
    assert said, "the page said nothing: " + (out[-80:] + err[-80:])
    said = json.loads(said.group(1))
    same(said, {"fetch": "200 50000", "proto": "h2", "many": 50, "ws": "hello"})
    return "h2"


# === Slowness ===

CROWD = 500


def established(port):
    """Connections that the proxy on this port has open: a client that does not read never learns that
    its own was closed."""
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


class Honest(threading.Thread):
    """A client that asks some times a second and times the answers."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.stopped, self.times, self.failed = port, False, [], 0
        self.most, self.open_late = 0, None

    def run(self):
        start = time.monotonic()
        while not self.stopped:
            begun = time.monotonic()
            self.most = max(self.most, established(self.port))
            if 38 < begun - start < 44:
                self.open_late = established(self.port)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/hello", timeout=10) as answer:
                    assert answer.read() == b"hello"
                self.times.append(time.monotonic() - begun)
            except Exception:  # pylint: disable=broad-except
                self.failed += 1
            time.sleep(0.1)


ALONE = threading.Lock()


def slow(proxy, path, *words):
    """One proxy at a time: they share the service and the machine."""
    with ALONE:
        return slow_alone(proxy, path, *words)


def slow_alone(proxy, path, *words):
    honest = Honest(proxy.plain)
    honest.start()
    _, out, _ = run(need("slowhttptest"), "-c", str(CROWD), "-r", "200", "-l", "45", "-p", "3", *words,
                    "-u", f"http://localhost:{proxy.plain}{path}", seconds=120)
    honest.stopped = True
    honest.join()
    out = re.sub(r"\x1b\[[0-9;]*m", "", out)
    ended = int(re.search(r"Test ended on (\d+)", out).group(1))
    # The tool ends early when all of them are gone.
    gone = "No open connections left" in out
    assert honest.most > CROWD / 2, f"only {honest.most} connections were made"
    closed = CROWD if gone else CROWD - (CROWD if honest.open_late is None else honest.open_late)
    times = sorted(honest.times)
    assert honest.failed == 0, f"{honest.failed} of {len(times) + honest.failed} honest requests failed"
    assert closed >= CROWD * 0.95, f"{closed} of {CROWD} were let go within {ended} s"
    worst = times[int(len(times) * 0.99)]
    return f"{closed} of {CROWD} let go in {ended} s; {len(times)} honest answers, 99 % within {worst * 1000:.0f} ms"


@check("Slowness", "slowhttptest, heads", "500 slow heads are let go within 45 s; honest requests all answered")
def slow_heads(proxy):
    return slow(proxy, "/hello", "-H", "-i", "5")


@check("Slowness", "slowhttptest, bodies", "500 slow bodies are let go within 45 s; honest requests all answered")
def slow_bodies(proxy):
    return slow(proxy, "/echo", "-B", "-i", "5", "-s", "8192")


@check("Slowness", "slowhttptest, readers", "500 readers of 4 MiB at 5 bytes a time are let go within 45 s; honest requests all answered")
def slow_readers(proxy):
    return slow(proxy, "/huge", "-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "5", "-k", "1")
