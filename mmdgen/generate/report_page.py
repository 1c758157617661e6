"""The corpus report as one HTML page: a summary, a table to sort and filter, the pictures of each model.

Everything that comes from files goes through `text`; pictures are called by number, so no file name is ever part of a
link. Pictures are loaded as they come into view, and the ground under them can be changed, so that wrong transparency
shows.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

_COLUMNS = (
    # title, what the header says on hovering, numeric
    ("status", "ok, repaired (diagnostics) or rejected (a reason)", False),
    ("file", "relative to the models' folder", False),
    ("name", "the model's own", False),
    ("reason, diagnostics", "why it is rejected; what was repaired, and how often", False),
    ("doubts", "what the pictures themselves make doubtful, or why there are none", False),
    ("vertices", "", True),
    ("materials", "", True),
    ("morphs", "", True),
    ("confidence", "of the annotation: the smaller of head bounds and morphs", True),
    ("bounds", "confidence of the head bounds", True),
    ("eyes, mouth", "confidence of the morphs", True),
    ("missing", "textures whose file was not found", True),
)

# What pages of reports have in common.
BASE_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1b1f; --soft: #5b5b66; --line: #c9c9d2; --card: #f4f4f7;
  --good: #17642f; --mended: #7a4a00; --bad: #a3141f; --link: #0b4fb3; }
@media (prefers-color-scheme: dark) { :root { --back: #17171a; --text: #ececf1; --soft: #b2b2be; --line: #45454f;
  --card: #212126; --good: #7ed99a; --mended: #ffc46b; --bad: #ff9a9a; --link: #9cc4ff; } }
body { margin: 0 auto; padding: 1rem; max-width: 110rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
a { color: var(--link); } .soft { color: var(--soft); } .path { overflow-wrap: anywhere; } td.path { min-width: 16rem; }
table { border-collapse: collapse; } caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border: 1px solid var(--line); padding: .25rem .5rem; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { background: var(--card); } th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\25b2"; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
.scroll { overflow-x: auto; } .tables { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.ok { color: var(--good); } .repaired { color: var(--mended); } .rejected { color: var(--bad); }
.ok, .repaired, .rejected { font-weight: 600; } fieldset, .filter { display: flex; flex-wrap: wrap; gap: 1rem;
  margin: .7rem 0; border: 0; padding: 0; } legend { float: left; margin-right: 1rem; }
"""

_STYLE = (
    BASE_STYLE
    + """
#models td:nth-child(n+3):nth-child(-n+5) { min-width: 9rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .9rem;
  margin: 1rem 0; content-visibility: auto; contain-intrinsic-size: auto 34rem; }
article h3 { margin: 0 0 .3rem; } .pictures { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: .6rem; }
figure { margin: 0; width: var(--side); } figcaption { font-size: .85em; }
.ground { position: relative; width: var(--side); height: var(--side); background: #808080; }
.ground img { display: block; width: 100%; height: 100%; }
body[data-ground=checker] .ground {
  background: repeating-conic-gradient(#767676 0 25%, #a8a8a8 0 50%) 0 0 / 24px 24px; }
body[data-ground=white] .ground { background: #fff; } body[data-ground=black] .ground { background: #000; }
body[data-ground=green] .ground { background: #0f0; }
.ruled::before, .ruled::after { content: ""; position: absolute; z-index: 1; left: 0; right: 0; height: 1px;
  background: #f0f; } .ruled::before { top: 25%; } .ruled::after { top: 75%; }
[hidden] { display: none !important; }
"""
)

_SCRIPT = """
'use strict';
const body = document.querySelector('#models tbody'), rows = [...body.rows];
const field = id => document.getElementById(id);
function filter() {
  const words = field('words').value.toLowerCase().split(' ').filter(Boolean), status = field('status').value;
  const doubtful = field('doubtful').checked;
  let count = 0;
  for (const row of rows) {
    const content = row.textContent.toLowerCase();
    const shown = words.every(word => content.includes(word)) && (!status || row.dataset.status === status)
      && (!doubtful || row.dataset.doubts !== '');
    row.hidden = !shown;
    field(row.dataset.card).hidden = !shown;
    count += shown;
  }
  field('shown').textContent = `${count} of ${rows.length} files`;
}
for (const id of ['words', 'status', 'doubtful']) field(id).addEventListener('input', filter);
document.querySelectorAll('#models th').forEach((head, column) => head.querySelector('button').onclick = () => {
  const down = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
  document.querySelectorAll('#models th').forEach(other => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', down === 1 ? 'ascending' : 'descending');
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const numeric = head.dataset.numeric === 'yes';
  const compare = (a, b) => numeric ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b));
  body.append(...rows.sort((a, b) => down * compare(a, b)));
});
document.querySelectorAll('input[name=ground]').forEach(one => one.oninput = () => {
  document.body.dataset.ground = one.value;
});
filter();
"""


def text(value: object) -> str:
    """Return a value as text for HTML content and attributes in double quotes."""
    return html.escape(str(value), quote=True)


def page(report: dict[str, Any]) -> str:
    """Return the whole page for a report as `report.Report.to_json` gives it. All texts in it must be printable."""
    entries: list[dict[str, Any]] = report["entries"]
    stages = tuple(report["summary"]["seconds"])
    side = min(int(report["view"].get("size", 256)), 320)
    grounds = "".join(
        f'<label><input type="radio" name="ground" value="{name}"{" checked" if name == "checker" else ""}> {name}'
        "</label>"
        for name in ("checker", "grey", "white", "black", "green")
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Corpus report: {text(report["root"])}</title>
<style>{_STYLE}:root {{ --side: {side}px; }}</style>
</head>
<body data-ground="checker">
<main>
<h1>Corpus report</h1>
<p>Models in <span class="path">{text(report["root"])}</span>. {_setting(report)}</p>
<section aria-labelledby="summary">
<h2 id="summary">Summary</h2>
{_summary(report["summary"])}
</section>
<section aria-labelledby="files">
<h2 id="files">Files</h2>
<div class="filter">
<label>Words <input id="words" type="search" size="30"></label>
<label>Status <select id="status"><option value="">any</option><option>ok</option><option>repaired</option>
<option>rejected</option></select></label>
<label><input id="doubtful" type="checkbox"> only with doubts</label>
<span id="shown" role="status">{len(entries)} files</span>
</div>
<div class="scroll">
<table id="models">
<caption>One row a file; a header sorts. Times in milliseconds.</caption>
<thead><tr>{_heads(stages)}</tr></thead>
<tbody>
{"".join(_row(entry, stages) for entry in entries)}</tbody>
</table>
</div>
</section>
<section aria-labelledby="pictures">
<h2 id="pictures">Pictures</h2>
<fieldset><legend>Ground under the pictures:</legend>{grounds}</fieldset>
<p class="soft">The lines on the rest picture are where the annotation puts the skull's top and the chin. Left and right
eye are the character's: the left one is at image right.</p>
{"".join(_card(entry) for entry in entries)}</section>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _setting(report: dict[str, Any]) -> str:
    stored = report["annotations"]
    annotations = f"Stored annotations: {text(stored)}." if stored else "Automatic annotations only."
    view = ", ".join(f"{name} {value}" for name, value in sorted(report["view"].items()))
    drawn = report["renderer"].get("renderer", "")
    return annotations + (f" View: {text(view)}." if view else "") + (f" Drawn by {text(drawn)}." if drawn else "")


def _summary(summary: dict[str, Any]) -> str:
    status = summary["status"]
    counts = [("files", summary["files"]), *status.items()]
    counts += [(name, summary[name]) for name in ("with pictures", "with missing textures", "doubtful", "problems")]
    tables = [table("Files", ("", "count"), counts)]
    if summary["reasons"]:
        tables.append(table("Reasons of rejection", ("code", "files"), summary["reasons"].items()))
    if summary["diagnostics"]:
        rows = [(code, item["files"], item["found"]) for code, item in summary["diagnostics"].items()]
        tables.append(table("Diagnostics", ("code", "files", "found"), rows))
    times = [
        (stage, item["count"], *(_time(item[name]) for name in ("median", "p90", "max")))
        for stage, item in summary["seconds"].items()
    ]
    heads = ("stage", "files", "median", "90th percentile", "longest")
    tables.append(table("Time a file, milliseconds", heads, times, "time"))
    return f'<div class="tables">\n{"".join(tables)}</div>'


def table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[object]], mark: str = "") -> str:
    """Return a table whose rows begin with their name; the other cells are numbers. Texts must be printable."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td class="number {mark}">{text(value)}</td>' for value in others)
        lines.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>\n')
    content = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"<table><caption>{text(caption)}</caption>{content}</table>\n"


def _heads(stages: Iterable[str]) -> str:
    columns = (*_COLUMNS, *((stage, "milliseconds", True) for stage in stages))
    return "".join(
        f'<th scope="col" data-numeric="{"yes" if numeric else "no"}" title="{text(title)}">'
        f'<button type="button">{text(name)}</button></th>'
        for name, title, numeric in columns
    )


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _number(value: float | None, form: str = "", mark: str = "") -> str:
    """Return a cell with a number in a format, or seconds as milliseconds; -1 sorts what is unknown to the front."""
    if value is None:
        return f'<td class="number {mark}" data-value="-1"></td>'
    return f'<td class="number {mark}" data-value="{value}">{format(value, form) if form else _time(value)}</td>'


def _row(entry: dict[str, Any], stages: Iterable[str]) -> str:
    look = entry["look"]
    why = [text(f"{entry['code']}: {entry['message']}")] if entry["code"] else []
    why += [text(f"{code} x {count}") for code, count, _ in look["diagnostics"]]
    doubtful = look["doubts"] + ([look["problem"]] if look["problem"] else [])
    parts = look["confidence"]
    confidences = [min(parts.values(), default=None), parts.get("head bounds"), parts.get("morphs")]
    numbers = [_number(look[name], ",") for name in ("vertices", "materials", "morphs")]
    numbers += [_number(value, ".2f") for value in confidences]
    numbers.append(_number(len(look["missing"]), "d"))
    numbers += [_number(look["seconds"].get(stage), mark="time") for stage in stages]
    card = f"m{entry['number']:05d}"
    return (
        f'<tr data-card="{card}" data-status="{entry["status"]}" data-doubts="{text("; ".join(doubtful))}">'
        f'<td class="{entry["status"]}">{entry["status"]}</td>'
        f'<td class="path"><a href="#{card}">{text(entry["path"])}</a></td><td>{text(look["name"])}</td>'
        f"<td>{'<br>'.join(why)}</td><td>{'<br>'.join(text(item) for item in doubtful)}</td>"
        f"{''.join(numbers)}</tr>\n"
    )


def _card(entry: dict[str, Any]) -> str:
    look = entry["look"]
    title = look["name"] or entry["path"]
    lines = [f'<p class="path soft">{text(entry["path"])}</p>']
    verdict = f'<span class="{entry["status"]}">{entry["status"]}</span>'
    why = text(f": {entry['code']}: {entry['message']}") if entry["code"] else ""
    lines.append(f"<p>{verdict}{why}</p>")
    if look["problem"]:
        lines.append(f'<p class="rejected">{text(look["problem"])}</p>')
    if look["doubts"]:
        lines.append(f"<p>Doubts: {text('; '.join(look['doubts']))}.</p>")
    details = [
        f"{code} x {count}" + (f", first: {first}" if first else "") for code, count, first in look["diagnostics"]
    ]
    details += [
        f"{part}: {look['sources'][part]}, confidence {value:.2f}" for part, value in look["confidence"].items()
    ]
    details += [reason for reason in look["reasons"] if reason]
    details += [f"{name}: {', '.join(terms) or 'nothing'}" for name, terms in look["terms"].items()]
    details += [f"texture not found: {name}" for name in look["missing"]]
    details += [f"drawn white: {name}" for name in look["white"]]
    details += [f"SHA-256 {look['sha256']}"] if look["sha256"] else []
    if details:
        items = "".join(f"<li>{text(item)}</li>" for item in details)
        lines.append(f"<details><summary>Details</summary><ul>{items}</ul></details>")
    pictures = "".join(_figure(picture, title) for picture in look["pictures"])
    lines.append(f'<div class="pictures">{pictures}</div>' if pictures else "<p>No pictures.</p>")
    return f'<article id="m{entry["number"]:05d}">\n<h3>{text(title)}</h3>\n{"".join(lines)}\n</article>\n'


def _figure(picture: dict[str, Any], title: str) -> str:
    caption = picture["caption"]
    return (
        f'<figure><div class="ground{" ruled" if picture["ruled"] else ""}">'
        f'<img src="{text(picture["file"])}" alt="{text(f"{title}: {caption}")}" loading="lazy" decoding="async"></div>'
        f"<figcaption>{text(caption)}</figcaption></figure>\n"
    )
