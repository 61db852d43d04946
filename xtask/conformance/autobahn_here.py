"""The Autobahn fuzzing client, which needs a Python 2.7; where there is none it is left out, and said."""

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile

START = "import site, sys\nsite.addsitedir(sys.argv.pop(1))\nfrom autobahntestsuite import wstest\nwstest.run()\n"
PACKAGE = "autobahntestsuite==0.8.2"


def python2():
    from checks import Skipped
    places = [shutil.which(name) for name in ("python2.7", "python2")]
    places += glob.glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python2.7"))
    for found in places:
        if found:
            if subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
                return found
    raise Skipped("the Autobahn fuzzing client needs Python 2.7, which is not installed")


def run(proxy):
    from checks import Skipped
    python = python2()
    place = f"{sys.prefix}/autobahn"
    if not os.path.isdir(f"{place}/autobahntestsuite"):
        words = [python, "-m", "pip", "install", "-q", "--target", place, PACKAGE]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            raise Skipped("the Autobahn fuzzing client could not be installed")
    with tempfile.TemporaryDirectory() as folder:
        spec = {"outdir": f"{folder}/reports", "servers": [{"agent": "proxy", "url": f"ws://127.0.0.1:{proxy.plain}/ws"}],
                "cases": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.*", "9.2.*", "9.7.*", "10.*"],
                # The service itself fails this one, with no proxy before it.
                "exclude-cases": ["7.9.5"], "exclude-agent-cases": {}}
        for name, text in (("spec.json", json.dumps(spec)), ("start.py", START)):
            with open(f"{folder}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        subprocess.run([python, f"{folder}/start.py", place, "-m", "fuzzingclient", "-s", f"{folder}/spec.json"],
                       cwd=folder, capture_output=True, timeout=900, check=False)
        with open(f"{folder}/reports/index.json", encoding="utf-8") as file:
            results = json.load(file)["proxy"]
    fine = {"OK", "NON-STRICT", "INFORMATIONAL"}
    wrong = [f"{case}: {result['behavior']}" for case, result in results.items()
             if result["behavior"] not in fine or result["behaviorClose"] not in fine]
    assert not wrong, f"{len(wrong)} of {len(results)}: " + ", ".join(wrong[:8])
    strict = sum(result["behavior"] == "OK" for result in results.values())
    return f"{len(results)} cases, {strict} of them strictly"
