"""How Sphinx builds these pages: strictly, and without a network."""

project = "Tenantune"
author = "the Tenantune authors"
copyright = author  # noqa: A001 - Sphinx's own name
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4  # links to headings are checked
nitpicky = True
html_theme = "furo"
html_title = "Tenantune"
html_static_path = ["_static"]
html_css_files = ["tenantune.css"]
html_copy_source = False
