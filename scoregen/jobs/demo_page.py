r"""The page of the demo, by gradio: a tab for what the checkpoint can do, a sentence for what it cannot.

What stands behind the buttons is in `demo_sampling`, `demo_despeckling` and `demo_certifying`; a mistake in what was
typed or uploaded is shown as the message that the command line would print.
"""

import base64
import functools
import html
import io
import shutil
import signal
import weakref
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, TypeVar

from scoregen import failures
from scoregen.errors import UserError
from scoregen.jobs.demo_certifying import MOST_DRAWS, Certifying, escaped
from scoregen.jobs.demo_despeckling import SUFFIXES, Despeckling
from scoregen.jobs.demo_sampling import MOST_CALLS, MOST_FRAMES, MOST_SAMPLES, NO_LABEL, Drawing

if TYPE_CHECKING:
    from gradio import Blocks

    from scoregen.jobs.demo import Demo

R = TypeVar("R")
_KEPT = 8  # results whose files stay: the page takes its copy soon after
_STYLE = """
.pixels{padding-top:2.25rem!important}
.pixels img{image-rendering:pixelated}
.film img{width:auto!important;height:auto!important;max-height:16rem;margin:auto}
.report iframe{width:100%;height:70vh;border:0;border-radius:8px;background:#fff}
.pixels .icon-button-wrapper{top:-2.1rem!important}
.pixels .image-container,.pixels .image-frame{overflow:visible}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(16rem,100%),1fr));gap:1.25rem}
.figures figure{margin:0}
.figures img{max-width:100%;max-height:16rem;border-radius:4px}
.scene .figures img{width:100%;max-height:none}
.scene img{image-rendering:pixelated}
.facts p,.facts li{overflow-wrap:anywhere}
footer{display:none!important}
"""


@dataclass(frozen=True)
class Tabs:
    r"""What is behind each tab, or in a sentence why it is absent.

    Args:
        facts: lines about the models. sample, interpolate, despeckle, certify: of the tabs.
    """

    facts: list[str]
    sample: Drawing | str
    interpolate: Drawing | str
    despeckle: Despeckling | str
    certify: Certifying | str

    def all(self) -> dict[str, Any]:
        r"""By name."""
        return {name: getattr(self, name) for name in ("sample", "interpolate", "despeckle", "certify")}

    def absent(self) -> dict[str, str]:
        r"""Why tabs are absent, by name."""
        return {name: why for name, why in self.all().items() if isinstance(why, str)}


class Folders:
    r"""Folders of results: the last few stay until others follow, none after the page."""

    def __init__(self) -> None:
        self.root, self.made = Path(mkdtemp(prefix="scoregen-demo-")), 0
        weakref.finalize(self, shutil.rmtree, self.root, ignore_errors=True)

    def new(self) -> Path:
        r"""An empty folder."""
        self.made += 1
        shutil.rmtree(self.root / str(self.made - _KEPT), ignore_errors=True)
        folder = self.root / str(self.made)
        folder.mkdir()
        return folder


def imported() -> Any:
    r"""gradio.

    Raises:
        UserError: it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"demo: needs gradio ({error}). Install it: pip install 'scoregen[demo]'.") from error
    return gradio


def page(gr: Any, tabs: Tabs) -> "Blocks":
    r"""The page, not served yet.

    Args:
        gr: gradio. tabs: what is behind its tabs.
    """
    folders = Folders()
    makers: dict[str, Callable[[Any, Any, Folders], None]] = {
        "sample": _sample,
        "interpolate": _interpolate,
        "despeckle": _despeckle,
        "certify": _certify,
    }
    with gr.Blocks(title="scoregen demo", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown("# scoregen demo\n\n" + "  \n".join(map(escaped, tabs.facts)), elem_classes="facts")
        for name, behind in tabs.all().items():
            if not isinstance(behind, str):
                with gr.Tab(name):
                    makers[name](gr, behind, folders)
        if absent := tabs.absent():
            lines = "\n".join(f"- **{name}**: {escaped(why)}" for name, why in absent.items())
            gr.Markdown(f"### Not on this page\n\n{lines}", elem_classes="facts")
    found: Blocks = blocks
    return found


def launch(gr: Any, blocks: "Blocks", demo: "Demo", block: bool = True) -> str:
    r"""Serves a page, and returns its address; with `block` when it is stopped.

    Args:
        gr: gradio. blocks: the page. demo: says where.

    Raises:
        UserError: the port is in use, or the address is not one of this machine.
    """
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
    theme = gr.themes.Base(**fonts).set(block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400")
    place = {"server_name": demo.server_name, "server_port": demo.server_port}
    looks = {"theme": theme, "css": _STYLE, "footer_links": [], "ssr_mode": False, "quiet": not demo.share}
    try:
        _, local, _ = blocks.launch(
            **place,
            **looks,
            share=demo.share,
            inbrowser=demo.inbrowser,
            prevent_thread_lock=True,
            max_file_size="256mb",
        )
    except OSError as error:
        raise UserError(
            f"server_name, server_port: {demo.server_name}, port {demo.server_port or 'any'} cannot be served "
            f"({error}). Give another port, or server_port=null for the first free one from 7860."
        ) from error
    print(f"page: {local} (stop with Ctrl-C)", flush=True)
    if block:
        before = signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # so that it cleans up as after Ctrl-C
        blocks.block_thread()
        signal.signal(signal.SIGTERM, before)
    return str(local)


def answering(gr: Any, function: Callable[..., R]) -> Callable[..., R]:
    r"""A function behind a button, whose mistakes are shown in the page as one message."""

    @functools.wraps(function)
    def answer(*values: Any) -> R:
        try:
            with redirect_stdout(io.StringIO()):  # the jobs print where their files lie
                return function(*values)
        except Exception as error:
            message = str(error) if isinstance(error, ValueError | TypeError) else failures.message(error)
            if message is None:
                raise
            for upload in (value for value in values if isinstance(value, str) and "/" in value):
                message = message.replace(f"{Path(upload).parent}/", "")  # where gradio keeps it
            raise gr.Error(html.escape(message, False), duration=None, print_exception=False) from error

    return answer


def _sample(gr: Any, drawing: Drawing, folders: Folders) -> None:
    names = drawing.samplers()
    with gr.Row():
        with gr.Column(min_width=280):
            label, guidance = _labels(gr, drawing, "all")
            sampler, calls = _sampler(gr, drawing, names)
            n = gr.Slider(1, MOST_SAMPLES, 16, step=1, label="n", info="samples of consecutive seeds")
            seed = gr.Number(0, precision=0, label="seed")
            button = gr.Button("Sample", variant="primary")
        with gr.Column(min_width=280, scale=2):
            picture = _picture(gr, "samples")
            text = gr.Markdown()
            line = _command(gr)

    def draw(label: Any, guidance: Any, sampler: str, calls: Any, n: Any, seed: Any) -> tuple[str, str, str]:
        more = {"label": label, "guidance": guidance}
        out = folders.new()
        found = drawing.sample(sampler, _whole("calls", calls), _whole("n", n), _whole("seed", seed), out, **more)
        return str(found.pictures[0]), escaped(found.text), found.command

    _click(gr, button, draw, [label, guidance, sampler, calls, n, seed], [picture, text, line])


def _interpolate(gr: Any, drawing: Drawing, folders: Folders) -> None:
    names = drawing.samplers(deterministic=True)
    with gr.Row():
        with gr.Column(min_width=280):
            label, guidance = _labels(gr, drawing, 0)
            sampler, calls = _sampler(gr, drawing, names)
            with gr.Row():
                first = gr.Number(0, precision=0, label="from seed", min_width=100)
                last = gr.Number(1, precision=0, label="to seed", min_width=100)
            frames = gr.Slider(2, MOST_FRAMES, 11, step=1, label="frames")
            button = gr.Button("Interpolate", variant="primary")
        with gr.Column(min_width=280, scale=2):
            strip = _picture(gr, "path; a row for each label")
            film = _picture(gr, "forth and back", "film")
            text = gr.Markdown()
            line = _command(gr)

    def draw(label: Any, guidance: Any, sampler: str, calls: Any, a: Any, b: Any, frames: Any) -> tuple[str, ...]:
        between, more = [_whole("seed", a), _whole("seed", b)], {"label": label, "guidance": guidance}
        out = folders.new()
        found = drawing.interpolate(sampler, _whole("calls", calls), between, _whole("frames", frames), out, **more)
        gif, png = map(str, found.pictures)
        return png, gif, escaped(found.text), found.command

    _click(gr, button, draw, [label, guidance, sampler, calls, first, last, frames], [strip, film, text, line])


def _despeckle(gr: Any, despeckling: Despeckling, folders: Folders) -> None:
    with gr.Row():
        with gr.Column(min_width=280):
            file = gr.File(label="picture, .tif, .npy or .npz", file_types=list(SUFFIXES))
            looks = gr.Textbox("4", label="looks", info="of the speckle, whose variance is 1/looks; or: estimate")
            unit = gr.Dropdown(["intensity", "amplitude", "db"], value="intensity", label="unit", info="of the values")
            scale = gr.Textbox(
                "", label="scale", info="value that is 1 in the training data, or: auto; empty: as stored"
            )
            floor = gr.Textbox("", label="floor", info="to which darker values, zeros too, are raised; empty: none is")
            samples = gr.Slider(0, 16, 0, step=1, label="samples", info="draws to average; 0: the posterior mean")
            seed = gr.Number(0, precision=0, label="seed")
            button = gr.Button("Despeckle", variant="primary")
        with gr.Column(min_width=280, scale=2):
            result = gr.File(label="restored, of the kind of the upload", interactive=False)
            text = gr.Markdown()
            figures = gr.HTML(elem_classes="scene")
            with gr.Accordion("report", open=False):
                report = gr.HTML(elem_classes="report")

    def restore(file: str | None, looks: str, unit: str, scale: str, floor: str, samples: Any, seed: Any) -> Any:
        values = {"unit": unit, "scale": scale, "floor": _number("floor", floor)}
        values |= {"samples": _whole("samples", samples), "seed": _whole("seed", seed)}
        found = despeckling(file, looks, folders.new(), **values)
        frame = f'<iframe sandbox title="report" srcdoc="{html.escape(found.page)}"></iframe>'
        text = "  \n".join(map(escaped, found.text.splitlines()))
        return str(found.file), text, _figures(found.figures), frame

    _click(gr, button, restore, [file, looks, unit, scale, floor, samples, seed], [result, text, figures, report])


def _certify(gr: Any, certifying: Certifying, folders: Folders) -> None:
    from typing import get_args

    from scoregen.jobs.certifying import Method

    told = certifying.sigma is not None
    with gr.Row():
        with gr.Column(min_width=280):
            file = gr.File(label="picture or .npy")
            sigma = gr.Number(
                certifying.sigma or 0.25, label="sigma", interactive=not told,
                info="of the noise" + (", which the classifier is told" if told else ", in units of the data"),
            )  # fmt: skip
            n = gr.Slider(100, MOST_DRAWS, 10_000, step=100, label="n", info="draws of the noise, at most")
            alpha = gr.Number(0.001, label="alpha", info="failure probability of the certificate")
            method = gr.Dropdown(list(get_args(Method)), value="ladder", label="method")
            seed = gr.Number(0, precision=0, label="seed")
            button = gr.Button("Certify", variant="primary")
        with gr.Column(min_width=280, scale=2):
            text = gr.Markdown()
            figures = gr.HTML()

    def certify(file: str | None, sigma: Any, n: Any, alpha: Any, method: Any, seed: Any) -> tuple[str, str]:
        given = {"alpha": _number("alpha", alpha), "method": method, "seed": _whole("seed", seed)}
        found = certifying(file, _number("sigma", sigma), _whole("n", n), **given)
        shown = [(found.seen, "what was certified")] if found.seen is not None else []
        shown += [(found.votes, "votes"), (found.curve, "what is proved of the votes at each distance")]
        return found.text, _figures([_figure(png, caption) for png, caption in shown])

    _click(gr, button, certify, [file, sigma, n, alpha, method, seed], [text, figures])


def _labels(gr: Any, drawing: Drawing, start: int | str) -> tuple[Any, Any]:
    r"""Fields for label and guidance; hidden ones for an unconditional model."""
    labels = drawing.labels or [("none", NO_LABEL)]
    label = gr.Dropdown(
        labels, value=start if drawing.labels else NO_LABEL, label="label", visible=bool(drawing.labels)
    )
    guidance = gr.Slider(1, 8, 1, step=0.25, label="guidance", info="1 is none", visible=bool(drawing.labels))
    return label, guidance


def _sampler(gr: Any, drawing: Drawing, names: list[str]) -> tuple[Any, Any]:
    sampler = gr.Dropdown(names, value=names[0], label="sampler")
    calls = gr.Slider(
        1, MOST_CALLS, drawing.calls(names[0]), step=1, label="calls", info="network calls of an image, at most"
    )
    return sampler, calls


def _picture(gr: Any, label: str, *classes: str) -> Any:
    r"""A picture below its label and buttons, which would hide a part of it."""
    buttons = ["download", "fullscreen"]
    return gr.Image(label=label, format="png", interactive=False, elem_classes=["pixels", *classes], buttons=buttons)


def _command(gr: Any) -> Any:
    return gr.Textbox(label="the same on the command line", interactive=False, buttons=["copy"])


def _click(gr: Any, button: Any, function: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
    r"""All buttons share one place: the jobs run one at a time."""
    answer = answering(gr, function)
    button.click(answer, inputs, outputs, concurrency_id="model", concurrency_limit=1, api_visibility="private")


def _number(name: str, value: Any) -> Any:
    r"""A number of a field, None for an empty one."""
    if value is None or (isinstance(value, str) and not value.strip()):
        if name == "floor":
            return None
        raise UserError(f"{name}: a value is required.")
    try:
        return float(value)
    except ValueError:
        raise UserError(f"{name}: must be a number, got '{value}'.") from None


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if not float(number).is_integer():
        raise UserError(f"{name}: must be a whole number, got {value}.")
    return int(number)


def _figures(figures: list[str]) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )
