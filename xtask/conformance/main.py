"""Clients and scanners that others wrote, against Sluice and its peers; a table of verdicts.

Arguments: the program, further `name=program` for peers, `--only WORD` to narrow by area or tool, and
`--write FILE` for the page. Ends with 1 if anything is red for Sluice."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent import futures

import proxies
from checks import CHECKS, Skipped

HERE = os.path.dirname(os.path.abspath(__file__))


def judge(function, proxy):
    begun = time.monotonic()
    try:
        word, note = "green", function(proxy)
    except Skipped as why:
        word, note = "skipped", str(why)
    except subprocess.TimeoutExpired:
        word, note = "red", "took too long"
    except Exception as error:  # pylint: disable=broad-except
        word, note = "red", (str(error) or repr(error)).replace("\n", " ")[:400]
    if word != "skipped" and not proxy.is_alive():
        word, note = "red", f"the proxy ended; {note}"
    return word, note, time.monotonic() - begun


def versions(programs):
    asks = [("curl", "--version"), ("node", "--version"), ("go", "version"), ("php", "--version"),
            ("ruby", "--version"), ("perl", "-e", "print $^V"), ("nghttp", "--version"),
            ("sslscan", "--version"), ("testssl", "--version"), ("slowhttptest", "-h"),
            ("chromium", "--version")]
    lines = []
    for ask in asks + [(programs["nginx"], "-v"), (programs["HAProxy"], "-v")]:
        try:
            done = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False)
        except OSError:
            continue
        said = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in (done.stdout + done.stderr).splitlines() if any(c.isdigit() for c in line)]
        if said:
            lines.append(f"{os.path.basename(ask[0])}: {said[0][:70]}")
    pip = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=False)
    wanted = ("requests", "httpx", "aiohttp", "h2", "websockets", "grpcio", "sslyze")
    lines += [line.replace("==", ": ") for line in pip.stdout.splitlines() if line.split("==")[0].lower() in wanted]
    return lines


def page(names, rows, programs):
    text = ["# Conformance", "",
            "Clients, scanners and attackers that others wrote, against Sluice and two peers before the same",
            "service. Written by `cargo xtask conformance --write-docs`; the commands stand in",
            "`xtask/conformance/checks.py`, the peers' configs in `xtask/conformance/proxies.py`. A verdict is",
            "green when what is expected came true, whole; red is quoted in the tool's words. h2spec is in no",
            "registry that this project fetches from; 46 cases of RFC 9113 that were written here, over Python's h2 and",
            "hpack, stand in for it. That the peers are red about TLS is a matter of their defaults, not of their TLS.", ""]
    area = None
    for (of, tool, expected), verdicts in rows:
        if of != area:
            area = of
            text += ["", f"## {of}", "", "| tool | expected | " + " | ".join(names) + " |",
                     "|---|---|" + "---|" * len(names)]
        cells = [f"{word}: {note}".replace("|", "\\|") for word, note, _ in verdicts]
        text.append(f"| {tool} | {expected} | " + " | ".join(cells) + " |")
    text += ["", "## Versions", ""] + [f"- {line}" for line in versions(programs)] + [""]
    return "\n".join(text)


def main():
    words = argparse.ArgumentParser()
    words.add_argument("programs", nargs="+")
    words.add_argument("--only")
    words.add_argument("--write")
    words = words.parse_args()
    programs = dict(word.split("=", 1) for word in words.programs)
    checks = [one for one in CHECKS if not words.only or words.only.lower() in f"{one[0]} {one[1]}".lower()]
    with tempfile.TemporaryDirectory() as folder:
        ground = proxies.Ground(folder, sys.executable, HERE)
        columns = {}

        def try_all(name):
            proxy = proxies.Proxy(name, programs[name], ground)
            try:
                for area, tool, _, function in checks:
                    verdict = columns[name, tool] = judge(function, proxy)
                    print(f"{name:8} {area:9} {tool:26} {verdict[0]:8} {verdict[2]:6.1f} s  {verdict[1]}", flush=True)
                    if not proxy.is_alive():
                        proxy = proxies.Proxy(name, programs[name], ground)
            finally:
                proxy.stop()

        try:
            # Most of the time is spent waiting, so all are tried at a time.
            with futures.ThreadPoolExecutor(len(programs)) as pool:
                list(pool.map(try_all, programs))
        finally:
            ground.stop()
    rows = [((area, tool, expected), [columns[name, tool] for name in programs]) for area, tool, expected, _ in checks]
    if words.write:
        with open(words.write, "w", encoding="utf-8") as file:
            file.write(page(list(programs), rows, programs))
    red = [tool for (_, tool, _), verdicts in rows if verdicts[0][0] == "red"]
    print(f"{len(rows) - len(red)} of {len(rows)} are not red for {next(iter(programs))}" + (f"; red: {', '.join(red)}" if red else ""))
    sys.exit(1 if red else 0)


main()
