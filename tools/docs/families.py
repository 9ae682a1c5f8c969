"""The page of a family of models, from its metafile, its README and the tables of the benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tools.docs.links import ROOT

TASKS = {
    "det": "Detection",
    "insseg": "Instance segmentation",
    "pose": "Pose",
    "semseg": "Semantic segmentation",
    "multitask": "Multi-task",
    "compress": "Compression",
}
IN_METAFILE = re.compile(r"parameters M|GFLOPs|.*\bAP\b|mIoU")  # columns of a README that its metafile has as well
Row = dict[str, str]  # column -> cell


class Family(NamedTuple):
    """What is known of a family."""

    folder: str  # below the repository: configs/det/dfine
    metafile: Mapping[str, Any]
    readme: str

    @property
    def name(self) -> str:
        """As its authors write it."""
        return self.metafile["Collections"][0]["Name"]

    @property
    def task(self) -> str:
        """Its section in the navigation."""
        return TASKS[self.folder.split("/")[1]]


def families(root: Path = ROOT) -> list[Family]:
    """All families, in the order of their tasks."""
    files = sorted(root.glob("configs/*/*/metafile.yml"), key=lambda file: list(TASKS).index(file.parts[-3]))
    return [
        Family(
            file.parent.relative_to(root).as_posix(),
            yaml.safe_load(file.read_text(encoding="utf-8")),
            (file.parent / "README.md").read_text(encoding="utf-8"),
        )
        for file in files
    ]


def cells(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(markdown: str) -> Iterable[tuple[list[str], list[list[str]], str]]:
    """Columns, rows and text of each table of a page."""
    for match in re.finditer(r"(?:^\|.*\n)+", f"{markdown}\n", re.MULTILINE):
        lines = match[0].splitlines()
        if len(lines) > 2 and re.fullmatch(r"[|\-: ]+", lines[1]):
            yield cells(lines[0]), [cells(line) for line in lines[2:]], match[0]


def to_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without the columns that are empty in all rows."""
    rows = list(rows)
    used = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in rows)]
    lines = [[columns[i] for i in used], ["---"] * len(used), *([row[i] for i in used] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def millions(value: float) -> str:
    """Parameters with three digits, as they were counted."""
    return f"{value:#.3g}".removesuffix(".")


def facts(collection: Mapping[str, Any]) -> str:
    """Paper, code and licence, a line each."""
    lines = []
    if paper := collection.get("Paper"):
        lines.append(f"Paper: [{paper['Title']}]({paper['URL']})")
    if code := collection.get("Code"):
        lines.append(f"Reference code: [{code['URL'].removeprefix('https://github.com/')}]({code['URL']})")
    return "\n".join(f"- {line}" for line in [*lines, f"License of this implementation: {collection['License']}"])


def models_table(family: Family, extra: Mapping[str, Row]) -> str:
    """The configs with parameters, input size and results.

    Args:
        family: whose.
        extra: name of a config -> what its README says besides.
    """
    sources: list[str] = []
    more = [column for column in next(iter(extra.values()), {}) if not IN_METAFILE.match(column)]
    rows = []
    for model in family.metafile["Models"]:
        results = []
        for result in model.get("Results", []):
            source = result.get("Source", "trained here, see the benchmarks")
            sources += [] if source in sources else [source]
            values = ", ".join(f"{name} {value}" for name, value in result["Metrics"].items())
            results.append(f"{values} on {result['Dataset']} ({sources.index(source) + 1})")
        readme = extra.get(model["Name"], {})
        column, plain = next((item for item in readme.items() if re.search(r"\bAP\b|mIoU", item[0])), ("", ""))
        if re.fullmatch(r"[\d.]+", plain):
            plain = f"{column} {plain}"
        meta = model["Metadata"]
        numbers = [str(meta["Input Size"]), millions(meta["Parameters (M)"]), str(meta.get("FLOPs (G)", ""))]
        name = f"[`{model['Name']}`]({model['Config'].removeprefix(family.folder + '/')})"
        rows.append([name, *(readme.get(column, "") for column in more), *numbers, "; ".join(results) or plain])
    table = to_table(["config", *more, "input", "parameters M, fused", "GFLOPs", "result"], rows)
    notes = "; ".join(f"({i}) {source}" for i, source in enumerate(sources, 1))
    return f"{table}\n\nSource of the results: {notes}." if notes else table


def split_readme(family: Family) -> tuple[str, str, dict[str, Row]]:
    """The README before and after its table of configs, and the cells of that table by config.

    A table that has rows of other networks, too, is left where it is.
    """
    title, _, body = family.readme.partition("\n")
    assert title.startswith("# ")
    for columns, rows, text in tables(body):
        if columns[0] == "config":
            before, _, after = body.partition(text)
            named = {row[0].strip("`"): dict(zip(columns[1:], row[1:])) for row in rows}
            complete = all(re.fullmatch(r"`[^`]+`", row[0]) for row in rows)
            return (before, after, named) if complete else (body, "", {})
    return body, "", {}


def commands(family: Family) -> str:
    """The commands from training to prediction, for the config for one's own data if there is one; else the first."""
    if "efftasks train" in family.readme:
        return ""
    names = [model["Name"] for model in family.metafile["Models"]]
    name = next((name for name in names if "_custom-" in name), names[0])
    data = " --cfg-options data_root=data/mine" if "_custom-" in name else ""
    lines = [
        f"efftasks train {name} --work-dir work_dirs/mine{data}",
        f"efftasks test work_dirs/mine/{name}.py work_dirs/mine/best.pth",
        f"efftasks export work_dirs/mine/{name}.py work_dirs/mine/best.pth --out out --eval",
    ]
    if "Predictor(" not in family.readme:  # otherwise the README says how its files are used
        lines.append("efftasks predict out/model.onnx photos/")
    return "## Commands\n\n```bash\n" + "\n".join(lines) + "\n```\n"


def measured(family: Family, benchmarks: Mapping[str, str]) -> str:
    """The rows of the benchmarks that have latencies of this family.

    Args:
        family: whose.
        benchmarks: path of a page in the repository -> its Markdown.
    """
    sizes = {model["Name"].split("_")[0] for model in family.metafile["Models"]}
    of_family = re.compile(rf"`?(?:{'|'.join(map(re.escape, sorted(sizes)))})(?:[_, `].*)?")
    up = "../" * len(family.folder.split("/"))
    parts = []
    for page, markdown in benchmarks.items():
        title = markdown.partition("\n")[0].removeprefix("# ")
        for columns, rows, _ in tables(markdown):
            if any(re.search(r"\bms\b", column) for column in columns):
                chosen = [row for row in rows if of_family.fullmatch(row[0])]
                if chosen:
                    parts.append(f"[{title}]({up}{page}):\n\n{to_table(columns, chosen)}\n")
    return "## Latency, measured\n\n" + "\n".join(parts) if parts else ""


def family_page(family: Family, benchmarks: Mapping[str, str]) -> str:
    """The page of a family in Markdown; its links are those of a file in the family's folder."""
    before, after, extra = split_readme(family)
    title = family.readme.partition("\n")[0].removeprefix("# ")
    parts = [
        f"# {title}",
        facts(family.metafile["Collections"][0]),
        before.strip(),
        "## Configs",
        models_table(family, extra),
        after.strip(),
        commands(family),
        "" if family.task == "Compression" else measured(family, benchmarks),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def overview(pages: Mapping[str, Family]) -> str:
    """The page of all families: a table for each task.

    Args:
        pages: path of a page from this one -> its family.
    """
    parts = ["# Model families\n\nA page each, made of its metafile, its README and the benchmarks."]
    for task in TASKS.values():
        rows = []
        for page, family in pages.items():
            if family.task == task:
                models = family.metafile["Models"]
                parameters = [float(model["Metadata"]["Parameters (M)"]) for model in models]
                low, high = millions(min(parameters)), millions(max(parameters))
                paper = family.metafile["Collections"][0].get("Paper")
                title = f"[{paper['Title']}]({paper['URL']})" if paper else ""
                span = low if low == high else f"{low} to {high}"
                rows.append([f"[{family.name}]({page})", str(len(models)), span, title])
        parts.append(f"## {task}\n\n{to_table(['family', 'configs', 'parameters M', 'paper'], rows)}")
    return "\n\n".join(parts) + "\n"
