"""The command as a user starts it: a process, its page, its pictures, and its end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.explore.conftest import COINS, encoded
from vit_attn.cli import main
from vit_attn.errors import UserError
from vit_attn.explore import server as module
from vit_attn.explore.server import listen

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "BROWSER": "false"}


class Running:
    """Process of ``vit-attn explore``."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "vit_attn", "explore", "--no-browser", "--model", COINS, *options]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT)
        self.said = ""
        while "explore at" not in self.said:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.said += line
        self.port = int(re.search(r"127\.0\.0\.1:(\d+)/", self.said)[1])

    def ask(
        self, method: str, path: str, body: object = None, chunked: bool = False, **headers: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers |= {"Origin": f"http://127.0.0.1:{self.port}"} | ({"Transfer-Encoding": "chunked"} if chunked else {})
        connection.request(method, path, body, headers, encode_chunked=chunked)
        reply = connection.getresponse()
        content = reply.status, reply.read()
        connection.close()
        return content


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    picture = tmp_path_factory.mktemp("pictures") / "first one.png"
    picture.write_bytes(encoded())
    running = Running(str(picture))
    yield running
    running.process.kill()
    running.process.communicate()


def test_a_process_answers_takes_pictures_and_ends_at_ctrl_c(tmp_path: Path):
    picture = tmp_path / "first one.png"
    picture.write_bytes(encoded())
    running = Running(str(picture))
    assert json.loads(running.ask("GET", "/pictures")[1])["pictures"][0]["name"] == "first one.png"
    assert running.ask("GET", f"/maps?run={COINS}&step=0&image=0")[0] == 200
    status, reply = running.ask("POST", "/picture", encoded(seed=1), **{"X-Name": "b.png"})
    assert (status, json.loads(reply)) == (200, {"image": 1, "name": "b.png"})
    assert running.ask("GET", f"/row?run={COINS}&step=0&image=1&method=legrad")[0] == 200
    running.process.send_signal(signal.SIGINT)
    out, errors = running.process.communicate(timeout=60)
    assert (running.process.returncode, out, errors) == (0, "stopped\n", "")


def test_the_process_listens_on_this_machine_alone(running: Running):
    with pytest.raises(OSError, match=r"refused|unreachable|assign|timed out"):
        socket.create_connection(("127.0.0.2", running.port), timeout=5)


def test_a_large_body_gets_its_reply_through_the_socket(running: Running):
    parts = (b"\0" * 500_000 for _ in range(102))
    for body, chunked in ((b"\0" * 51_000_000, False), (parts, True)):
        status, reply = running.ask("POST", "/picture", body, chunked)
        assert (status, reply) == (413, b"the body must be at most 50 MB")
    assert running.ask("POST", "/picture", encoded())[0] == 200


def test_bytes_that_are_no_http_leave_the_server_as_it_is(running: Running):
    for content in (
        b"",
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /picture HTTP/1.1\r\n",
    ):
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as sender:
            sender.sendall(content)
    bad = b"POST /picture HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nOrigin: http://127.0.0.1:%d\r\n" % ((running.port,) * 2)
    for header in (b"Content-Length: -5", b"Content-Length: many", b"Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as sender:
            sender.sendall(bad + header + b"\r\n\r\nzz\r\n")
            assert b" 4" in sender.recv(100)
    assert running.ask("GET", "/runs")[0] == 200


def test_a_port_in_use_is_passed_over_or_refused_by_its_number(running: Running):
    with listen(None) as other:
        assert other.getsockname()[1] > module.FIRST_PORT or running.port != module.FIRST_PORT
        assert other.getsockname()[1] != running.port
    with pytest.raises(UserError, match=f"port {running.port} is in use: name another with --port"):
        listen(running.port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int):
    with pytest.raises(UserError, match=r"--port must be in 0\.\.65535"):
        listen(port)


def test_where_no_port_is_free_one_must_be_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TRIED_PORTS", 0)
    with pytest.raises(UserError, match="name one with --port"):
        listen(None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "resnet18"], "resnet18 is no vision transformer"),
        (["--model", "vit_tiny_patch16_22"], "did you mean"),
        (["gone.png"], "no such image or folder: gone.png"),
        (["--model", COINS, "--model", COINS, "--weights", "none"], "for one network"),
        (["--port", "70000"], "--port must be in"),
        (["--modle", COINS], "unknown option --modle"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(options: list[str], words: str, capsys: pytest.CaptureFixture[str]):
    assert main(["explore", "--no-browser", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_the_page_is_opened_in_a_browser_unless_it_is_not_wanted(page, monkeypatch: pytest.MonkeyPatch, capsys):
    for wanted in (True, False):
        opened, waiting = [], module.threading.Event()
        monkeypatch.setattr(
            module.webbrowser, "open", lambda url, opened=opened, waiting=waiting: (opened.append(url), waiting.set())
        )
        monkeypatch.setattr("werkzeug.serving.BaseWSGIServer.serve_forever", lambda self: self.server_close())
        listening = listen(0)
        port = listening.getsockname()[1]
        module.serve(page.session, listening, wanted)
        assert waiting.wait(10 if wanted else 0) is wanted
        assert opened == [f"http://127.0.0.1:{port}/"] * wanted
        assert f"explore at http://127.0.0.1:{port}/ until Ctrl-C" in capsys.readouterr().out
        page.session.lock.release()
