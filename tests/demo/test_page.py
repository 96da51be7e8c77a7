r"""The page of the demo, made by gradio: its tabs, its buttons, its messages and where it is served."""

import gc
import re
import urllib.request
from pathlib import Path

import pytest
from demo_parts import quoted
from tiny import command

import scoregen
from scoregen.errors import UserError
from scoregen.jobs.demo_page import imported, launch, page
from scoregen.jobs.demo_tabs import answering


@pytest.fixture
def gr():
    yield pytest.importorskip("gradio")
    gc.collect()  # what a test leaves would be found in another one


by_gradio = pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves event loops and sockets to be collected


def test_without_gradio_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(UserError, match=r"the page needs gradio .*pip install 'scoregen\[demo\]'"):
        imported()


@by_gradio
def test_the_page_has_a_tab_for_what_can_be_done_and_a_sentence_for_the_rest(gr, both):
    config = page(gr, both).get_config_file()
    tabs = [part["props"]["label"] for part in config["components"] if part["type"] == "tabitem"]
    assert tabs == ["sample", "interpolate", "certify"]
    texts = [part["props"].get("value") for part in config["components"] if part["type"] == "markdown"]
    assert any("**despeckle**" in str(text) for text in texts)
    assert config["analytics_enabled"] is False


@by_gradio
def test_a_mistake_is_shown_as_its_message_and_a_bug_is_raised(gr, runs, both):
    behind = {part.label: part for part in page(gr, both).blocks.values() if getattr(part, "label", None)}
    assert behind["calls"].maximum == 128
    draw = answering(gr, lambda file: both.certify(file, 0.25, 100, alpha=2.0, method="fixed", seed=0))
    with pytest.raises(gr.Error) as shown:
        draw(f"{runs}/picture.png")
    assert "alpha must lie in " in shown.value.message and shown.value.duration is None
    with pytest.raises(gr.Error) as shown:
        draw(f"{runs}/<missing>.png")
    assert "&lt;missing&gt;" in shown.value.message and str(runs) not in shown.value.message
    with pytest.raises(ZeroDivisionError):
        answering(gr, lambda: 1 / 0)()


@by_gradio
def test_the_buttons_give_what_is_behind_them(gr, both, tmp_path):
    blocks = page(gr, both)
    sample, interpolate, certify = (blocks.fns[k].fn for k in sorted(blocks.fns))
    picture, text, line = sample("all", 1, "ddim", 2, 3, 0)
    both.sample.sample("ddim", 2, 3, 0, tmp_path, label="all", guidance=1)
    assert Path(picture).read_bytes() == (tmp_path / "grid.png").read_bytes()
    assert "2 network calls" in text and line.startswith("scoregen sample ")
    with pytest.raises(gr.Error, match="seed: a value is required"):
        sample("all", 1, "ddim", 2, 3, None)
    with pytest.raises(gr.Error, match=r"frames: must be a whole number, got 2\.5"):
        interpolate("all", 1, "ddim", 2, 0, 1, 2.5)
    with pytest.raises(gr.Error, match="images: a value is required"):
        certify(None, 0.25, 100, 0.01, "fixed", 0)


@by_gradio
def test_the_page_is_served_on_this_machine_and_asks_for_nothing_elsewhere(gr, log):
    demo = scoregen.Demo(checkpoint="x")
    blocks = page(gr, log)
    address = launch(gr, blocks, demo, block=False)
    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=20) as answer:
            text = answer.read().decode()
        assert answer.status == 200 and "scoregen demo" in text
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=.?https?://(?!127\.0\.0\.1)", text)
        port = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(UserError, match=f"server_port: 127.0.0.1, port {port} cannot be served"):
            launch(gr, page(gr, log), scoregen.Demo(checkpoint="x", server_port=port), block=False)
    finally:
        blocks.close()


@by_gradio
def test_a_dry_run_says_what_the_page_would_have_and_writes_nothing(gr, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command("demo", f"checkpoint='{quoted(runs)}/digits'", "dry_run=true", "server_name=0.0.0.0") == 0
    said = capsys.readouterr().out
    assert "checkpoint: digits/step_00000002" in said and "no tab despeckle: " in said
    assert "0.0.0.0 lets other machines in" in said and not [*tmp_path.iterdir()]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command("demo", f"checkpoint='{quoted(runs)}/digits'") == 1
    assert "the page is served from one process" in capsys.readouterr().err
