"""Two corrections to what Jupyter Book makes of a page: a fork points to itself, and nothing is fetched to read it."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # the reference documents the book's own `kit`


def use_own_repository(app, config):
    """On GitHub the address in _config.yml gives way to that of the fork being built: its buttons then work."""
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        config.html_theme_options["repository_url"] = f"{server}/{repository}"


def drop_thebe(app, pagename, templatename, context, doctree):
    """Jupyter Book always adds the script of sphinx-thebe, which would fetch its code from a CDN; no button here uses it."""
    context["script_files"] = [
        file for file in context["script_files"] if "thebe" not in str(getattr(file, "attributes", "")) + str(file)
    ]


def setup(app):
    """Sphinx calls this."""
    app.connect("config-inited", use_own_repository, priority=100)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
