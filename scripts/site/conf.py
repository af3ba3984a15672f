"""What Sphinx is told. The pages are those that scripts/site/build.py has put into build/site/source."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import hoop

project = "hoop"
author = "the contributors of hoop"
project_copyright = author
version = release = hoop.__version__
root_doc = "index"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_heading_anchors = 4  # by GitHub's rule, so that a link to a heading works there and here
nitpicky = True  # a reference to a name that has no page is a warning, and warnings are errors
nitpick_ignore_regex = [("py:(class|data)", ".*")]  # but types in signatures may be others' than hoop's
smartquotes = False  # "lifo" is what one types
python_display_short_literal_types = True
python_maximum_signature_line_length = 100
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"hoop {release}"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_theme_options = {
    # The system's own fonts: no page of the site asks another host for anything.
    "light_css_variables": {
        "font-stack": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif",
        "font-stack--monospace": "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace",
        "color-brand-primary": "#0b6e4f",
        "color-brand-content": "#0a6648",
        "color-brand-visited": "#0a6648",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5ed1a5",
        "color-brand-content": "#6fd9b0",
        "color-brand-visited": "#6fd9b0",
    },
}
