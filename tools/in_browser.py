"""Open notebooks in a running JupyterLab, run them, and print as JSON what a reader would see: tools/elsewhere.py asks.

Needs playwright, and no package of the book.
"""

import json
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
OPEN = """async () => {
  const app = window.jupyterapp;
  await app.restored;
  for (let i = 0; i < 600 && !app.shell.currentWidget?.sessionContext; i++) await new Promise(r => setTimeout(r, 100));
  const panel = app.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.revealed;
}"""
FLIPBOOKS = """() => [...document.querySelectorAll(".flipbook")].map(book => ({
  frames: [...book.querySelectorAll("img")].filter(image => image.checkVisibility()).length,
  slider: book.querySelector("input:enabled") !== null,
}))"""
RUN = """async () => {
  await window.jupyterapp.commands.execute("notebook:run-all-cells");
  return window.jupyterapp.shell.currentWidget.context.model.toJSON().cells.filter(c => c.cell_type == "code");
}"""
SAY = """async code => {
  const future = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code});
  let printed = "";
  future.onIOPub = message => { printed += message.content.text ?? ""; };
  await future.done;
  return printed;
}"""


def outputs(cells):
    return [o for cell in cells for o in cell["outputs"]]


def opened(context, request, name):
    page = context.new_page()
    lab = f"{request['url']}/lab/workspaces/{Path(name).stem}/tree/book/{name}"
    page.goto(f"{lab}?token={request['token']}&reset", timeout=180_000)
    page.wait_for_function("() => window.jupyterapp !== undefined", timeout=180_000)
    page.evaluate(OPEN)
    page.wait_for_timeout(1000)
    return page


def run(context, request, stem):
    """One chapter: its flipbooks before and after Run All, its stderr, seconds, and the kernel's peak."""
    page, others = opened(context, request, f"{stem}.ipynb"), []
    others += flipbook_faults(page, "before it is run")
    start = time.monotonic()
    cells = page.evaluate(RUN)
    seconds = time.monotonic() - start
    errors = [f"{o['ename']}: {o['evalue']}" for o in outputs(cells) if o["output_type"] == "error"]
    left = [c for c in cells if c["execution_count"] is None and "".join(c["source"]).strip()]
    if left:
        errors.append(f"{len(left)} cells were not run")
    stderr = "".join("".join(o["text"]) for o in outputs(cells) if o.get("name") == "stderr")
    others += flipbook_faults(page, "after it was run")
    megabytes = int(page.evaluate(SAY, request["peak"]) or 0)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()
    return {
        "chapter": stem, "seconds": seconds, "megabytes": megabytes, "stderr": stderr, "error": "\n".join(errors),
        "others": [f"{stem}: {fault}" for fault in others],
    }  # fmt: skip


def flipbook_faults(page, when):
    """One frame is seen and a slider that arrow keys move."""
    books = page.evaluate(FLIPBOOKS)
    for book in books:
        if book != {"frames": 1, "slider": True}:
            yield f"{when} a flipbook shows {book['frames']} frames, its slider is {'there' if book['slider'] else 'dead'}"
    if books and books[0]["slider"]:
        slider = page.locator(".flipbook input").first
        slider.scroll_into_view_if_needed()
        before = slider.input_value()
        slider.press("ArrowRight" if before == "0" else "ArrowLeft")
        if slider.input_value() == before:
            yield f"{when} arrow keys do not move the slider of a flipbook"


def without_trust(context, request, stem):
    """The same notebook changed by a word, so with another signature: one frame, and no slider that does nothing."""
    stored = json.loads(Path(f"book/{stem}.ipynb").read_text(encoding="utf-8"))
    stored["metadata"]["changed"] = "so nobody signed it"
    Path("book/untrusted.ipynb").write_text(json.dumps(stored), encoding="utf-8")
    page = opened(context, request, "untrusted.ipynb")
    books, dead = page.evaluate(FLIPBOOKS), page.locator(".flipbook input").count()
    trusted = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.model.cells.get(1).trusted")
    page.close()
    ok = bool(books) and all(book["frames"] == 1 for book in books) and not dead
    return [] if ok else [f"{stem}, not trusted ({trusted=}): flipbooks {books}, sliders {dead}"]


def main():
    request = json.loads(sys.argv[1])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=request["browser"], args=FLAGS)
        context = browser.new_context()
        context.set_default_timeout(30_000)
        for stem in request["stems"]:
            stored = Path(f"book/{stem}.ipynb").read_text(encoding="utf-8")
            extra = without_trust(context, request, stem) if 'class=\\"flipbook\\"' in stored else []
            found = run(context, request, stem)
            found["others"] += extra
            print(json.dumps(found), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
