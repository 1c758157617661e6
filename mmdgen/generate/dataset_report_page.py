"""The report on a dataset as one HTML page: no scripts, no files beside it, pictures and charts inline.

Whatever comes from models goes through `shown`, which makes it printable and escapes it. The ground under the pictures
is chosen by radio buttons and CSS alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mmdgen.dataset.card import size_text
from mmdgen.dataset.credits import HINT_MEANINGS, HINT_TASKS
from mmdgen.generate.dataset_report_charts import WORKERS_SHOWN, duration, histogram, memory_chart, shown
from mmdgen.generate.report_page import BASE_STYLE, table

STAGE_MEANINGS = {
    "load": "reading models and textures, on a thread of its own",
    "wait": "drawing stood still because no model was ready",
    "upload": "a model's data to the renderer",
    "draw": "drawing and reading back",
    "encode": "compressing pictures, on a thread of its own",
    "write": "building shards and writing them",
}
GROUNDS = ("checker", "grey", "white", "black")

_STYLE = """
h2 { margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
h3 { margin: 1.2rem 0 .4rem; }
main > p, main section > p { max-width: 62rem; } nav a { margin-right: 1rem; }
.notice { border-left: .3rem solid var(--mended); background: var(--card); padding: .5rem .9rem; }
.notice.bad { border-color: var(--bad); }
.facts { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0; padding: 0; list-style: none; }
.facts li { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .9rem; }
.facts b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 1.4rem; } .charts figure { margin: 0; width: 20rem; }
svg { display: block; max-width: 100%; height: auto; } svg .bar { fill: var(--bar); }
svg .bar.suspect { fill: var(--bad); }
svg .line { fill: none; stroke: var(--mended); stroke-width: 1.6; } svg .axis { stroke: var(--line); }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
:root { --bar: #7c93b8; } @media (prefers-color-scheme: dark) { :root { --bar: #6d83a8; } }
figcaption { font-size: .85em; line-height: 1.35; }
.sheet { display: flex; flex-wrap: wrap; gap: 1rem; } .sheet figure { margin: 0; width: min-content; }
.triple { display: flex; gap: 2px; } .triple img { display: block; background: #808080; }
.grounds { position: sticky; top: 0; background: var(--back); padding: .4rem 0; z-index: 1; }
.grounds label { margin-right: .9rem; }
body:has(#ground-checker:checked) .triple img {
  background: repeating-conic-gradient(#8a8a8a 0 25%, #b4b4b4 0 50%) 0 0 / 16px 16px; }
body:has(#ground-white:checked) .triple img { background: #fff; }
body:has(#ground-black:checked) .triple img { background: #000; }
.swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid var(--line); vertical-align: -.15em; }
.share { display: flex; height: 1.1rem; max-width: 62rem; border: 1px solid var(--line); margin: .5rem 0; }
.share i { display: block; background: var(--bar); border-right: 1px solid var(--back); }
.share i:nth-child(even) { opacity: .55; }
details { margin: .4rem 0; } td.words { max-width: 34rem; overflow-wrap: anywhere; }
th[scope=row] { font-weight: 500; overflow-wrap: anywhere; max-width: 26rem; }
@media print { .grounds { display: none; } }
"""


def page(facts: dict[str, Any]) -> str:
    """Return the whole page for what `dataset_report.gather` found."""
    sections = (
        ("splits", "Splits", _splits),
        ("pictures", "Samples", _sheets),
        ("poses", "Poses", _poses),
        ("faults", "Pictures in numbers", _pictures),
        ("failures", "Models that are missing", _failures),
        ("sizes", "Sizes", _sizes),
        ("timings", "Timings", _timings),
        ("models", "Characters, credits and terms", _models),
        ("making", "How it was made", _making),
    )
    body = "".join(
        f'<section aria-labelledby="{key}">\n<h2 id="{key}">{title}</h2>\n{section(facts)}</section>\n'
        for key, title, section in sections
    )
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Dataset {shown(facts["name"])}</title>
<style>{BASE_STYLE}{_STYLE}</style>
</head>
<body>
<main>
<h1>Dataset {shown(facts["name"])}</h1>
{_head(facts)}
<nav>{links}</nav>
{body}</main>
</body>
</html>
"""


def _head(facts: dict[str, Any]) -> str:
    splits = facts["splits"].values()
    samples, images = sum(row["samples"] for row in splits), sum(row["images"] for row in splits)
    lost = sum(row["models"] for row in facts["failures"])
    items = [
        (f"{samples:,}", "samples"),
        (f"{images:,}", "pictures"),
        (f"{facts['models']['count']:,}", "characters"),
        (f"{facts['config']['image_size']}", "pixels a side"),
        (size_text(facts["bytes"]), "on disk"),
        (f"{lost:,}", "models left out"),
    ]
    notices = ""
    if not facts["finished"]:
        planned = sum(row.get("planned_samples", 0) for row in splits)
        share = f"{100 * samples / planned:.1f} %" if planned else "nothing"
        notices += (
            f'<p class="notice"><strong>Unfinished.</strong> {samples:,} of {planned:,} planned samples ({share}) are '
            "there; this page tells of those. The same render command goes on.</p>\n"
        )
    problems = facts["problems"]
    if problems:
        listed = "".join(f"<li>{shown(problem)}</li>" for problem in problems[:20])
        more = f"<li>... and {len(problems) - 20:,} more</li>" if len(problems) > 20 else ""
        notices += (
            f'<div class="notice bad"><strong>{len(problems):,} shards cannot be read.</strong> What they hold is '
            f"missing below. <ul>{listed}{more}</ul></div>\n"
        )
    findings = _findings(facts)
    if findings:
        notices += f'<div class="notice"><strong>Worth a look:</strong><ul>{"".join(findings)}</ul></div>\n'
    cards = "".join(f"<li><b>{value}</b>{name}</li>" for value, name in items)
    return f'{notices}<ul class="facts">{cards}</ul>\n'


def _findings(facts: dict[str, Any]) -> list[str]:
    """Return list items for what looks wrong, each with a link to where it is told."""
    items = []
    for split, poses in facts["poses"].items():
        names = [row["name"] for row in poses["parameters"] if row.get("suspect")]
        if names:
            items.append(f'<a href="#poses">{split}: {shown(", ".join(names))} do not follow their density</a>')
    for kind, row in facts["pictures"].items():
        items += [
            f'<a href="#faults">{kind}: {fault["count"]:,} of {row["looked_at"]:,} pictures are {shown(what)}</a>'
            for what, fault in row["faults"].items()
        ]
    lost = sum(row["samples"] for row in facts["failures"])
    if lost:
        items.append(f'<a href="#failures">{lost:,} planned samples are missing, because models failed</a>')
    if any(facts["models"]["hints"].values()):
        items.append('<a href="#models">words about terms of use that forbid something</a>')
    return [f"<li>{item}</li>" for item in items]


def _splits(facts: dict[str, Any]) -> str:
    rows = []
    for split, row in facts["splits"].items():
        each = row["samples_per_model"]
        spread = f"{each[0]:,} / {each[1]:,g} / {each[2]:,}" if each else ""
        planned = f" of {row['planned_samples']:,}" if "planned_samples" in row else ""
        shards = f" of {row['planned_shards']:,}" if "planned_shards" in row else ""
        cells = (f"{row['samples']:,}{planned}", f"{row['models']:,}", spread, f"{row['shards']:,}{shards}")
        rows.append((split, *cells, f"{row['images']:,}", size_text(row["bytes"])))
    heads = (
        "split",
        "samples",
        "characters",
        "samples a character: least / median / most",
        "shards",
        "pictures",
        "size",
    )
    return table("No character is in two splits", heads, rows)


def _sheets(facts: dict[str, Any]) -> str:
    if not facts["sheets"]:
        return "<p>There is no sample yet.</p>\n"
    grounds = "".join(
        f'<label><input type="radio" name="ground" id="ground-{name}"{" checked" if name == GROUNDS[0] else ""}> {name}'
        "</label>"
        for name in GROUNDS
    )
    parts = [
        "<p>Evenly chosen samples: at rest, with the expression, posed. What is transparent shows the ground.</p>\n"
        f'<div class="grounds" role="group" aria-label="Ground under the pictures">Ground: {grounds}</div>\n'
    ]
    for split, samples in facts["sheets"].items():
        figures = "".join(_triple(split, sample) for sample in samples)
        parts.append(f'<h3>{split}</h3>\n<div class="sheet">{figures}</div>\n')
    return "".join(parts)


def _triple(split: str, sample: dict[str, Any]) -> str:
    pictures = "".join(
        f'<img src="data:image/png;base64,{data}" alt="{shown(sample["model"])}, {kind}" title="{kind}">'
        for kind, data in zip(("rest", "expression", "posed"), sample["pictures"], strict=True)
    )
    pose = ", ".join(f"{name} {value:g}" for name, value in sample["pose"].items())
    return (
        f'<figure><div class="triple">{pictures}</div><figcaption>{shown(sample["model"], 60)} '
        f'<span class="soft">{split} {sample["number"]:,}</span><br><span class="soft">{shown(pose)}</span>'
        "</figcaption></figure>\n"
    )


def _poses(facts: dict[str, Any]) -> str:
    parts = [
        "<p>Bars are how often values occur, the line is what the density asks for: eyes and mouth are uniform, joints "
        "have 0.15 + 0.70 |x|. <i>D</i> is the largest distance between the two distribution functions "
        "(Kolmogorov-Smirnov); with the right density, sqrt(n) <i>D</i> is near 0.87 and above 1.63 once in a hundred "
        "times. <i>p</i> is how often such a distance or a larger one comes by chance. Chi-square is over 20 cells of "
        "equal probability: 19 is expected, give or take 6. Red: p below 0.001.</p>\n"
    ]
    for split, poses in facts["poses"].items():
        count = poses["samples"]
        charts = "".join(_pose_chart(row, count) for row in poses["parameters"])
        parts.append(f'<h3>{split}, {count:,} samples</h3>\n<div class="charts">{charts}</div>\n')
    return "".join(parts)


def _pose_chart(row: dict[str, Any], count: int) -> str:
    expected = [
        value * count * (row["high"] - row["low"]) / len(row["bins"]) for value in row.get("density", ()) if count
    ]
    chart = histogram(row["bins"], row["low"], row["high"], expected, suspect=bool(row.get("suspect")))
    told = f"mean {row['mean']:.3f}"
    if "distance" in row:
        numbers = f"sqrt(n) <i>D</i> = {row['distance'] * count**0.5:.2f}, <i>p</i> = {row['probability']:.3g}"
        told = f"{numbers}, chi-square {row['chi_square']:.1f}, {told}"
    mark = ' <span class="rejected">not its density</span>' if row.get("suspect") else ""
    meaning = f'<br><span class="soft">{shown(row["meaning"])}</span>'
    return f"<figure>{chart}<figcaption><b>{shown(row['name'])}</b>{mark}: {told}{meaning}</figcaption></figure>\n"


def _pictures(facts: dict[str, Any]) -> str:
    rows, charts, faults = [], [], []
    for kind, row in facts["pictures"].items():
        coverage = row["coverage"]
        red, green, blue = row["mean_color"]
        rows.append(
            (
                kind,
                f"{row['looked_at']:,}",
                f"{coverage['min']:.1%} / {coverage['mean']:.1%} / {coverage['max']:.1%}",
                f"{red}, {green}, {blue}",
                f"{row['cut_at_the_top']:,}",
            )
        )
        if row["looked_at"]:
            charts.append(
                f"<figure>{histogram(coverage['bins'], 0, 1)}<figcaption><b>{kind}</b>: share of the picture that is "
                f'covered, <span class="swatch" style="background:rgb({red},{green},{blue})"></span> mean color'
                "</figcaption></figure>\n"
            )
        for what, fault in row["faults"].items():
            cases = "".join(f"<li>{shown(case)}</li>" for case in fault["cases"])
            left = fault["count"] - len(fault["cases"])
            more = f"<li>... and {left:,} more</li>" if left > 0 else ""
            title = f"{kind}: {fault['count']:,} {shown(what)}"
            faults.append(f"<details><summary>{title}</summary><ul>{cases}{more}</ul></details>\n")
    heads = ("picture", "looked at", "covered: least / mean / most", "mean color (sRGB)", "reach the top edge")
    none = "<p>None is empty, nearly empty, nearly full, a copy of another one, or without its pose.</p>\n"
    return (
        table("Evenly chosen pictures of all splits; one rest picture a character", heads, rows)
        + f'<div class="charts">{"".join(charts)}</div>\n{"".join(faults) or none}'
    )


def _failures(facts: dict[str, Any]) -> str:
    if not facts["failures"]:
        return "<p>None: every model that was found is in the dataset.</p>\n"
    rows = [
        (
            f'<a href="#why-{number}">{shown(row["code"])}</a>',
            shown(row["stage"]),
            f"{row['models']:,}",
            f"{row['samples']:,}" if row["samples"] else "",
        )
        for number, row in enumerate(facts["failures"])
    ]
    why = "".join(_why(number, row) for number, row in enumerate(facts["failures"]))
    heads = ("reason", "found in", "models", "samples missing")
    return grid("By reason", heads, rows, {2, 3}) + why + "<p>failures.jsonl lists all of them.</p>\n"


def _why(number: int, row: dict[str, Any]) -> str:
    examples = "".join(f'<li class="path">{shown(example)}</li>' for example in row["examples"])
    left = row["models"] - len(row["examples"])
    more = f"<li>... and {left:,} more</li>" if left > 0 else ""
    models = f"{row['models']:,} model{'s' if row['models'] != 1 else ''}"
    title = f"<b>{shown(row['code'])}</b>, {models}: {shown(row['meaning'])}"
    return (
        f'<details id="why-{number}" open><summary>{title} <i>{shown(row["remedy"])}</i></summary>'
        f"<ul>{examples}{more}</ul></details>\n"
    )


def _sizes(facts: dict[str, Any]) -> str:
    total = sum(row["bytes"] for row in facts["fields"].values()) or 1
    rows = [
        (shown_name, f"{row['rows']:,}", size_text(row["bytes"]), f"{row['bytes'] / total:.1%}", size_text(row["each"]))
        for shown_name, row in facts["fields"].items()
        if row["bytes"] >= total / 10_000
    ]
    samples = sum(row["samples"] for row in facts["splits"].values())
    each = f"<p>{size_text(facts['bytes'] / samples)} a sample with all that belongs to it.</p>\n" if samples else ""
    splits = [
        (split, size_text(row["bytes"]), size_text(row["bytes"] / row["images"]) if row["images"] else "")
        for split, row in facts["splits"].items()
    ]
    return (
        '<div class="tables">'
        + table("By split", ("split", "size", "a picture"), splits)
        + table("By field", ("field", "rows", "size", "share", "a row"), rows)
        + f"</div>\n{each}"
    )


def _timings(facts: dict[str, Any]) -> str:
    found = facts["timings"]
    if found is None:
        return (
            "<p>Nobody noted them: the file <code>NAME-timings.jsonl</code> beside the dataset's folder, to which "
            "every start of mmdgen render appends, is not there or is of another plan. They are never part of the "
            "dataset, whose bytes must not depend on the machine.</p>\n"
        )
    stages = sum(found["stages"].values()) or 1
    shares = "".join(
        f'<i style="width:{100 * seconds / stages:.2f}%" title="{name}"></i>'
        for name, seconds in found["stages"].items()
    )
    images = found["images"] or 1
    rows = [
        (name, f"{seconds:,.1f}", f"{1000 * seconds / images:.2f}", f"{seconds / stages:.0%}")
        for name, seconds in found["stages"].items()
    ]
    rows.append(("processor", f"{found['cpu']:,.1f}", f"{1000 * found['cpu'] / images:.2f}", ""))
    told = "".join(f"<li><b>{name}</b>: {meaning}</li>" for name, meaning in STAGE_MEANINGS.items())
    starts = []
    workers = []
    for number, start in enumerate(found["starts"], 1):
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(start["began"]))
        row = (when, f"{start['images']:,}", duration(start["seconds"]), f"{start['images_per_second']:,.1f}")
        starts.append((f"{number}", *row, f"{len(start['workers'])}"))
        workers += [
            (
                f"{number}.{place}",
                f"{worker['shards']:,}",
                f"{worker['images']:,}",
                f"{worker['images'] / worker['seconds']:,.1f}" if worker["seconds"] else "",
                f"{worker['cpu'] / worker['seconds']:.0%}" if worker["seconds"] else "",
                size_text(worker["memory"]) if worker["memory"] else "",
            )
            for place, worker in enumerate(start["workers"][:WORKERS_SHOWN], 1)
        ]
    heads = ("start", "began (UTC)", "pictures", "time", "pictures/s", "workers")
    of_workers = ("worker", "shards", "pictures", "pictures/s", "of a core", "most memory")
    again = f"<p>{found['repeated']:,} shards were made more than once.</p>\n" if found["repeated"] else ""
    return (
        f'<div class="share" aria-hidden="true">{shares}</div>\n<div class="tables">'
        + table("Stages, added up over all workers", ("stage", "seconds", "ms a picture", "share"), rows)
        + table("Starts of the command, from the first shard on", heads, starts)
        + table("Workers", of_workers, workers)
        + f"</div>\n<ul>{told}</ul>\n"
        + f"<p>Threads work side by side: the stages may add up to more than the time.</p>\n{again}"
        + memory_chart(found["starts"])
    )


def _models(facts: dict[str, Any]) -> str:
    models = facts["models"]
    if facts["config"]["settings"].get("characters") is not None:
        return "<p>mmdgen made all the characters by itself (CC0 1.0): nobody has to be asked.</p>\n"
    parts = [
        "<p>The characters belong to their authors. What follows was found by words in comments and readme files: "
        f"places to look first, no legal findings. {models['silent']:,} of {models['count']:,} came without any word "
        "about their maker or terms. All texts are in provenance.jsonl, word for word.</p>\n"
    ]
    hints = [
        (shown(hint), f"{count:,}", HINT_MEANINGS.get(hint, ""), HINT_TASKS.get(hint, ""))
        for hint, count in models["hints"].items()
    ]
    if hints:
        parts.append(grid("Hints", ("hint", "characters", "found", "before publishing"), hints, {1}))
    sources = [
        (
            shown(row["source"]) or "-",
            row["split"],
            f"{row['models']:,}",
            f"{row['samples']:,}",
            shown(", ".join(f"{hint} {count}" for hint, count in row["hints"].items())),
            "<br>".join(shown(line) for line in row["credits"]),
        )
        for row in models["by_source"]
    ]
    heads = ("source folder", "split", "characters", "samples", "hints", "credits")
    parts.append(grid("Sources", heads, sources, {2, 3}))
    left = models["sources"] - len(sources)
    parts.append(f"<p>... and {left:,} more source folders.</p>\n" if left > 0 else "")
    listed = [
        (
            shown(row["name"], 80) or "-",
            shown(row["source"], 80),
            row["split"],
            f"{row['samples']:,}",
            shown(", ".join(row["hints"])),
            shown(row["credit"]),
            f"<code>{shown(row['sha256'][:16])}</code>",
        )
        for row in models["listed"]
    ]
    titles = ("character", "from", "split", "samples", "hints", "credit", "SHA-256")
    left = models["count"] - len(listed)
    more = f"<p>... and {left:,} more: see models in manifest.json.</p>" if left > 0 else ""
    parts.append(f"<details><summary>All characters</summary>{grid('', titles, listed, {3})}{more}</details>\n")
    return "".join(parts)


def grid(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """Return a table whose cells are HTML; columns in `numbers` are set as numbers, the first one names the row."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    lines = []
    for first, *cells in rows:
        kinds = ["number" if column in numbers else "words" for column in range(1, len(heads))]
        content = "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, cells, strict=True))
        lines.append(f'<tr><th scope="row">{first}</th>{content}</tr>\n')
    title = f"<caption>{caption}</caption>" if caption else ""
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table>{title}{body}</table></div>\n'


def _making(facts: dict[str, Any]) -> str:
    config = facts["config"]
    settings = {
        "mmdgen": facts["code_version"],
        **{key: value for key, value in config.items() if key not in ("settings", "vocabulary")},
        "vocabulary": config["vocabulary"]["name"],
        **config["settings"],
    }
    rows = [(name, str(value)) for name, value in settings.items() if value is not None]
    drawn = [(name, str(value)) for name, value in facts["renderer"].items()]
    return (
        '<div class="tables">'
        + table("Settings", ("setting", "value"), rows)
        + (table("Renderer", ("", ""), drawn) if drawn else "")
        + "</div>\n"
    )
