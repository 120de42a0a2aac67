"""Hostile requests are refused in a sentence, and the server goes on."""

import io

import pytest
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from tests.explore.conftest import BASE, PORT, Page, encoded
from vit_attn.explore import guards
from vit_attn.explore.guards import MAX_PICTURE_BYTES

PLACE = {"run": "coins", "step": 0, "image": 0}


def refused(reply, status: int, *words: str) -> None:
    assert reply.status_code == status, (reply.status_code, reply.text)
    assert reply.mimetype == "text/plain"
    assert "\n" not in reply.text
    for word in words:
        assert word in reply.text


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", "", "0.0.0.0"])
@pytest.mark.parametrize("path", ["/", "/runs", "/static/index.js"])
def test_a_request_for_another_host_is_refused(page: Page, host: str, path: str):
    refused(page.client.get(path, base_url=BASE, headers={"Host": host}), 403, "Host")


def test_localhost_is_the_same_server(page: Page):
    assert page.client.get("/runs", base_url=f"http://localhost:{PORT}").status_code == 200


@pytest.mark.parametrize("path", ["/picture", "/cut", "/try", "/judge"])
@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", f"https://127.0.0.1:{PORT}", "http://127.0.0.1"]
)
def test_a_post_from_another_site_or_from_none_is_refused(page: Page, path: str, origin: str | None):
    headers = {} if origin is None else {"Origin": origin}
    reply = page.client.post(path, base_url=BASE, data=encoded(), headers=headers)
    refused(reply, 403, "Origin")
    assert len(page.session.pictures) == 1


def test_a_get_by_a_script_of_another_site_is_refused(page: Page):
    refused(page.client.get("/runs", base_url=BASE, headers={"Origin": "http://evil.example"}), 403, "Origin")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_nothing_but_the_page_can_be_linked_or_embedded_elsewhere(page: Page, site: str):
    headers = {"Sec-Fetch-Site": site}
    refused(page.client.get("/image", base_url=BASE, query_string=PLACE, headers=headers), 403, "another site")
    assert page.client.get("/", base_url=BASE, headers=headers).status_code == 200
    for own in ("same-origin", "none"):
        assert page.client.get("/runs", base_url=BASE, headers={"Sec-Fetch-Site": own}).status_code == 200


class Zeros(io.RawIOBase):
    """Endless body, which counts the bytes that were read of it."""

    taken = 0

    def read(self, size: int = -1) -> bytes:
        assert 0 <= size <= guards.PART  # never the whole
        self.taken += size
        return b"\0" * size


def sent(page: Page, body: object, **environ: object) -> TestResponse:
    """Reply to a picture, from the body as the server hands it over."""
    of_builder = EnvironBuilder("/picture", BASE, method="POST", headers={"Origin": BASE}).get_environ()
    of_builder.pop("CONTENT_LENGTH", None)
    chunks, status, headers = run_wsgi_app(page.client.application, of_builder | {"wsgi.input": body} | environ)
    return TestResponse(chunks, status, headers, request=EnvironBuilder("/picture", BASE).get_request())


def test_a_picture_that_is_too_large_is_read_to_its_end_and_forgotten(page: Page):
    body = Zeros()
    refused(sent(page, body, CONTENT_LENGTH="51000000"), 413, "at most 50 MB")
    assert body.taken == 51_000_000  # so that a browser sees the reply


def test_of_an_endless_body_no_more_is_read_than_a_bound(page: Page, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guards, "MAX_DRAINED_BYTES", 1_000_000)
    for environ in ({"CONTENT_LENGTH": "9" * 18}, {"wsgi.input_terminated": True}):
        body = Zeros()
        refused(sent(page, body, **environ), 413)
        assert body.taken <= MAX_PICTURE_BYTES + guards.PART + 1_000_000


def test_a_body_in_chunks_is_counted(page: Page, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vit_attn.explore.app.MAX_PICTURE_BYTES", 200_000)
    body = io.BytesIO(b"\0" * 300_000)
    refused(sent(page, body, **{"wsgi.input_terminated": True}), 413, "at most 0.2 MB")
    assert sent(page, io.BytesIO(encoded()), **{"wsgi.input_terminated": True}).status_code == 200
    assert len(page.session.pictures) == 2


def test_a_body_that_ends_early_is_refused(page: Page):
    refused(sent(page, io.BytesIO(encoded()[:100]), CONTENT_LENGTH="1000"), 400, "100 of 1,000 bytes")


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"run": NaN}', b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_a_question_that_is_no_object_in_json_is_refused(page: Page, body: bytes):
    refused(page.post("/cut", body), 400, "object in JSON")


@pytest.mark.parametrize("body", [b"{}", b'{"run": 3, "image": 0}', b'{"run": "coins", "image": true}'])
def test_a_question_about_no_picture_is_refused(page: Page, body: bytes):
    refused(page.post("/try", body), 422, "run must be a name")


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../plugin.py", "/static/%2e%2e/plugin.py", "/static//etc/passwd", "/etc/passwd", "/static/"),
        *("/..%2f..%2fetc/passwd", "/static/css/..%5c..%5cplugin.py", "/static/index.js%00", "/Runs", "/runs/"),
    ],
)
def test_no_path_that_a_browser_names_is_opened(page: Page, path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vit_attn.explore.app.read_static", lambda name: pytest.fail(f"{name} was read"))
    refused(page.get(path), 404, "there is nothing at")


def test_a_wrong_method_is_refused(page: Page):
    refused(page.get("/picture"), 405, "takes POST, got GET")
    refused(page.post("/runs", b""), 405, "takes GET, got POST")


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("/step", {"run": "other", "step": 0}, 404),
        ("/step", {"step": 0}, 422),
        ("/step", {"run": "coins"}, 422),
        ("/steps", {"run": "coin"}, 404),
        ("/classes", {"run": "../coins"}, 404),
        ("/measures", {"run": ""}, 404),
        *(("/step", PLACE | {"step": value}, 422) for value in ("-1", "nan", "1.0", "9" * 5000, "", "0x1", "٣")),
        ("/step", PLACE | {"step": 7}, 404),
        ("/step", PLACE | {"step": "9" * 18}, 404),
        *(("/image", PLACE | {"image": value}, 422) for value in ("-1", "1e3", "nan")),
        *((path, PLACE | {"image": 1}, 404) for path in ("/image", "/step", "/maps", "/prediction")),
        *(("/maps", PLACE | {"layers": value}, 422) for value in ("3", "2-1", "-1-2", "9-9", "a-b", "0-" + "9" * 99)),
        *(("/queries_keys", PLACE | {"layer": value}, 422) for value in ("3", "-1", "nan")),
        *(("/row", PLACE | {"method": value}, 422) for value in ("", "raw", "rollouts", "__class__")),
        ("/row", PLACE, 422),
        *(("/row", PLACE | {"method": "rollout", "query": value}, 422) for value in ("65", "-1", "cls", "", "9" * 18)),
        *(("/row", PLACE | {"method": "relevance", "target": value}, 422) for value in ("10", "-1", "nan", "9" * 18)),
        *(("/row", PLACE | {"method": "rollout", "layer": value}, 422) for value in ("3", "-1", "inf")),
        ("/row", PLACE | {"method": "rollout", "fusion": "median"}, 422),
        ("/row", PLACE | {"method": "relevance", "layer": "1"}, 422),
        ("/row", PLACE | {"method": "legrad", "query": "3"}, 422),
    ],
)
def test_parameters_that_name_nothing_are_refused_in_a_sentence(page: Page, path: str, parameters, status: int):
    refused(page.get(path, **parameters), status)
    assert page.get("/runs").status_code == 200


def test_every_reply_has_the_headers_that_guard_it(page: Page):
    for reply in (page.get("/"), page.get("/runs"), page.get("/nothing"), page.post("/picture", b"")):
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "script-src 'self'" in reply.headers["Content-Security-Policy"]
        assert "unsafe-inline" not in reply.headers["Content-Security-Policy"].partition("style-src")[0]
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert reply.headers["Cache-Control"] == "no-store"


def test_a_bug_is_one_sentence_with_status_500_and_the_server_goes_on(page: Page, monkeypatch, capsys):
    def broken(*_: object) -> None:
        raise KeyError("a\nb")

    monkeypatch.setattr(page.session.pictures, "fitted", broken)
    refused(page.get("/image", **PLACE), 500, "the question failed: KeyError")
    assert capsys.readouterr().err.startswith("vit-attn: KeyError")
    monkeypatch.undo()
    assert page.get("/image", **PLACE).status_code == 200
