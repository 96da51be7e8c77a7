r"""The tabs of the demo's page: fields, a button, and what it shows.

A mistake in what was typed or uploaded is shown as the message that the command line would print.
"""

import base64
import functools
import html
import io
import shutil
import weakref
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar, get_args

from scoregen import failures
from scoregen.errors import UserError
from scoregen.jobs.certifying import Method
from scoregen.jobs.demo_certifying import MOST_DRAWS, Certifying, escaped
from scoregen.jobs.demo_despeckling import SUFFIXES, Despeckling
from scoregen.jobs.demo_sampling import MOST_CALLS, MOST_FRAMES, MOST_SAMPLES, NO_LABEL, Drawing

R = TypeVar("R")
_KEPT = 8  # results whose files stay: the page takes its copy soon after


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


def sample_tab(gr: Any, drawing: Drawing, folders: Folders) -> None:
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


def interpolate_tab(gr: Any, drawing: Drawing, folders: Folders) -> None:
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


def despeckle_tab(gr: Any, despeckling: Despeckling, folders: Folders) -> None:
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


def certify_tab(gr: Any, certifying: Certifying, folders: Folders) -> None:
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
