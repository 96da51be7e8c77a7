r"""The page of the demo, by gradio: a tab for what the checkpoint can do, a sentence for what it cannot.

Its tabs are in `demo_tabs`; what stands behind them is in `demo_sampling`, `demo_despeckling` and `demo_certifying`.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scoregen.errors import UserError
from scoregen.jobs.demo_certifying import Certifying, escaped
from scoregen.jobs.demo_despeckling import Despeckling
from scoregen.jobs.demo_sampling import Drawing
from scoregen.jobs.demo_tabs import Folders, certify_tab, despeckle_tab, interpolate_tab, sample_tab

if TYPE_CHECKING:
    from gradio import Blocks

    from scoregen.jobs.demo import Demo

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


def imported() -> Any:
    r"""gradio.

    Raises:
        UserError: it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"the page needs gradio ({error}). Install it: pip install 'scoregen[demo]'.") from error
    return gradio


def page(gr: Any, tabs: Tabs) -> "Blocks":
    r"""The page, not served yet.

    Args:
        gr: gradio. tabs: what is behind its tabs.
    """
    folders = Folders()
    makers: dict[str, Callable[[Any, Any, Folders], None]] = {
        "sample": sample_tab,
        "interpolate": interpolate_tab,
        "despeckle": despeckle_tab,
        "certify": certify_tab,
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
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up as after Ctrl-C
        blocks.block_thread()
        signal.signal(signal.SIGTERM, before)
    return str(local)
