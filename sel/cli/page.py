"""The page: a photograph in, a slider between before and after, the sampler's choices, a download."""

import html
import time
from pathlib import Path
from typing import Any

import gradio as gr

from sel.cli.visits import Model, Visits, accept, enhance
from sel.diffusion import SAMPLERS
from sel.errors import UserError

# The default of a function, in which Gradio looks for it.
_PROGRESS = gr.Progress()

THEME = gr.themes.Base(
    primary_hue="amber",
    neutral_hue="stone",
    radius_size="lg",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    button_primary_background_fill="*primary_400",
    button_primary_background_fill_hover="*primary_300",
    button_primary_background_fill_dark="*primary_400",
    button_primary_background_fill_hover_dark="*primary_300",
    button_primary_text_color="*neutral_950",
    button_primary_text_color_dark="*neutral_950",
)
# Beside each other where there is room; on a phone the picture follows what it comes from.
CSS = """
.gradio-container, .gradio-container main { width: 100% !important; max-width: 1280px !important; margin: 0 auto; }
#title h1 { font-size: 1.6rem; font-weight: 600; letter-spacing: -0.01em; margin: 0 0 0.2rem; }
#title p { color: var(--body-text-color-subdued); margin: 0; }
#room { display: grid; gap: 1rem 1.5rem; grid-template: "choose stage" auto "sampler stage" 1fr / 300px 1fr; }
#choose { grid-area: choose; } #stage { grid-area: stage; } #sampler { grid-area: sampler; }
#choose, #stage, #sampler { min-width: 0 !important; width: 100%; }
#stage .block { min-height: min(340px, 60vw); }
#before img { width: 100%; max-height: 620px; object-fit: contain; }
#stage [data-testid="status-tracker"] {
  background: color-mix(in srgb, var(--background-fill-primary) 55%, transparent);
}
#status p { margin: 0; overflow-wrap: anywhere; }
#status .error { color: #b91c1c; font-weight: 500; }
.dark #status .error { color: #fca5a5; }
@media (max-width: 760px) {
  #room { grid-template: "choose" auto "stage" auto "sampler" auto / 1fr; }
  #title h1 { font-size: 1.35rem; }
}
"""


def build_page(model: Model, visits: Visits, *, name: str, max_pixels: float, max_waiting: int) -> gr.Blocks:
    """Lay the page out and say what its parts do.

    Args:
      model: enhances.
      visits: where photographs lie meanwhile.
      name: of the model, as shown.
      max_pixels: of a photograph.
      max_waiting: most that wait for one another's photographs.
    """
    note = f"{name} · up to {max_pixels / 1e6:g} megapixels · photographs are removed when you leave"
    with gr.Blocks(title="Brighten a photograph", analytics_enabled=False, fill_width=True) as page:
        gr.HTML(f"<h1>Brighten a photograph</h1><p>{html.escape(note)}</p>", elem_id="title", padding=False)
        photograph = gr.State(None)
        with gr.Row(elem_id="room"):
            with gr.Column(elem_id="choose"):
                field = gr.File(label="Photograph", file_types=["image"], height=150, elem_id="field")
                button = gr.Button("Enhance", variant="primary", interactive=False, elem_id="enhance")
                status = gr.HTML(visible=False, elem_id="status", padding=False)
                download = gr.DownloadButton("Download PNG", visible=False, elem_id="download")
            with gr.Column(elem_id="stage"):
                before = gr.Image(label="Before", interactive=False, buttons=[], elem_id="before")
                slider = gr.ImageSlider(
                    label="Before | after", max_height=620, visible=False, buttons=["fullscreen"], elem_id="slider"
                )
            with gr.Column(elem_id="sampler"):
                slow = " and ".join(name for name, sampler in SAMPLERS.items() if sampler.few_steps is None)
                method = gr.Dropdown(
                    list(SAMPLERS), value=model.method, label="Sampler", info=f"{slow} need all steps."
                )
                steps = gr.Slider(
                    1, model.most_steps, model.steps(model.method), step=1, label="Steps", elem_id="steps"
                )
                seed = gr.Number(
                    0, label="Seed", info="Another seed, another result.", precision=0, minimum=0, maximum=2**31 - 1
                )
        method.input(model.steps, method, steps, api_visibility="private")
        visitors = _Visitors(model, visits, max_pixels)
        field.upload(
            visitors.pick,
            field,
            [field, photograph, before, button, status, slider, download],
            show_progress_on=before,
            api_visibility="private",
        )
        button.click(
            visitors.brighten,
            [photograph, method, steps, seed],
            [before, slider, download, status],
            show_progress_on=[before, slider],
            scroll_to_output=True,
            api_visibility="private",
        )
        page.unload(visitors.leave)
    # One photograph at a time, whoever asks.
    return page.queue(max_size=max_waiting, default_concurrency_limit=1)


class _Visitors:
    """What visitors do. Each method returns news for the parts of the page that `build_page` names with it."""

    def __init__(self, model: Model, visits: Visits, max_pixels: float):
        self._model, self._visits, self._max_pixels = model, visits, max_pixels

    def pick(self, upload: str, request: gr.Request) -> list[Any]:
        """Take a photograph in and show it; the field is free for another."""
        hide = gr.update(visible=False)
        try:
            source, preview = accept(Path(upload), self._visits.folder(request.session_hash or ""), self._max_pixels)
        except UserError as error:
            shown, button = gr.update(value=None, visible=True), gr.update(interactive=False)
            return [None, None, shown, button, _say(str(error), error=True), hide, hide]
        shown, button = gr.update(value=str(preview), visible=True), gr.update(interactive=True)
        return [None, str(source), shown, button, _say(source.name), hide, hide]

    def brighten(
        self, source: str, method: str, steps: float, seed: float, progress: gr.Progress = _PROGRESS
    ) -> list[Any]:
        """Enhance and show, or say what is wrong."""

        def report(done: int, total: int) -> None:
            progress(done / total, desc="Enhancing")

        began = time.monotonic()
        try:
            shown = enhance(self._model.restorer(method, int(steps), int(seed or 0)), Path(source), report)
        except UserError as error:
            return [gr.skip(), gr.skip(), gr.skip(), _say(str(error), error=True)]
        return [
            gr.update(visible=False),
            gr.update(value=(str(shown.before), str(shown.after)), visible=True),
            gr.update(value=str(shown.download), visible=True),
            _say(f"{shown.download.name}, in {time.monotonic() - began:.1f} s"),
        ]

    def leave(self, request: gr.Request) -> None:
        """Remove what the visit left."""
        self._visits.end(request.session_hash or "")


def _say(text: str, *, error: bool = False) -> Any:
    kind, role = ("error", "alert") if error else ("note", "status")
    return gr.update(value=f'<p class="{kind}" role="{role}">{html.escape(text)}</p>', visible=True)
