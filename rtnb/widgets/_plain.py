"""Plain ipywidgets for knobs: a slider, a checkbox, a list to choose from or a line of text."""

from __future__ import annotations

from typing import Any

import ipywidgets
from traitlets import Bool, Float, TraitType


def plain_widget(trait: TraitType[Any, Any], value: Any, *, style: Any, layout: Any) -> Any:
    """The input that a knob's trait asks for."""
    tags = trait.metadata
    words = {"description": tags["label"], "layout": layout}
    if choices := tags.get("choices"):
        options = [one if isinstance(one, tuple) else (str(one), one) for one in choices]
        plain = ipywidgets.Dropdown(
            options=options, value=value, style=style(ipywidgets.widgets.widget_description.DescriptionStyle), **words
        )
    elif isinstance(trait, Bool):
        kind = ipywidgets.widgets.widget_bool.CheckboxStyle
        plain = ipywidgets.Checkbox(value=value, indent=True, style=style(kind), **words)
    elif span := tags.get("span"):
        low, high, step = span
        slider = ipywidgets.FloatSlider if isinstance(trait, Float) else ipywidgets.IntSlider
        kind = ipywidgets.widgets.widget_int.SliderStyle
        plain = slider(value=value, min=low, max=high, step=step, style=style(kind), **words)
    else:
        kind = ipywidgets.widgets.widget_string.TextStyle
        plain = ipywidgets.Text(value=str(value), continuous_update=False, style=style(kind), **words)
    return plain


def put(widget: Any, value: Any) -> None:
    """Set a plain widget, which must not bend the value to what it knows: a service may be wider than our sliders."""
    if isinstance(widget, ipywidgets.Dropdown) and not any(value == known for _, known in widget.options):
        widget.options = (*widget.options, (str(value), value))
    elif isinstance(widget, ipywidgets.IntSlider | ipywidgets.FloatSlider):
        widget.min, widget.max = min(widget.min, value), max(widget.max, value)
    widget.value = str(value) if isinstance(widget, ipywidgets.Text) else value
