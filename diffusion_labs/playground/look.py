"""How the page looks: one quiet column of settings, pixels as squares, and no font from elsewhere."""

from typing import Any

CSS = """
.gradio-container { width: 100% !important; max-width: 1200px !important;
  margin: 0 auto !important; padding-top: 28px !important; }
#title h1 { font-size: 26px; font-weight: 600; letter-spacing: -0.01em; margin: 0 0 2px; }
#title p { color: var(--body-text-color-subdued); margin: 0 0 8px; }
.picture img { image-rendering: pixelated; object-fit: contain; }
.plot img { object-fit: contain; }
.picture, .plot { background: transparent; }
.note p { color: var(--body-text-color-subdued); font-size: 13px; }
.about p { color: var(--body-text-color-subdued); font-size: 13px; text-align: center; }
.about strong { color: var(--body-text-color); }
.picture:not(:has(img)), .plot:not(:has(img)) { display: none !important; }
.plot:has(img) + * { display: none !important; }
.work:not(:has(.picture img)) .later, .work:has(button.stop:enabled) .later, .later:has(.empty) {
  display: none !important; }
footer { display: none !important; }
"""


def theme(gradio: Any) -> Any:
    """The theme; all fonts are those of the system."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "Helvetica", "Arial", "sans-serif"]
    return gradio.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        spacing_size="md",
        font=sans,
        font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        input_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
    )
