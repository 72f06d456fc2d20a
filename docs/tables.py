"""Write the tables of these pages that are made from the package's records: ``python docs/tables.py``."""

from __future__ import annotations

import re
from pathlib import Path

from fbnetv3_zoo.arch.cost import arch_cost
from fbnetv3_zoo.weights.registry import RECORDS, WeightsEntry

PAGE = Path(__file__).parent / "weights.md"
_PLACE = re.compile(r"(<!-- weights table -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """The text of ``weights.md`` with the table of published weights as the records now have it."""
    head = "| weights | MB | top-1 % | top-5 % | at px | resize | license | digest | source of the accuracy |"
    lines = [head, "|---|---:|---:|---:|---:|---:|---|---|---|", *(_row(record) for record in RECORDS.values())]
    return _PLACE.sub(lambda found: f"{found[1]}{chr(10).join(lines)}\n{found[2]}", page)


def _row(record: WeightsEntry) -> str:
    given = record.accuracy[0] if record.accuracy else None
    top1 = f"{given.top1:.2f}" if given else "-"
    top5 = f"{given.top5:.2f}" if given and given.top5 is not None else "-"
    source = given.evidence.value if given else "-"
    digest = ", ".join(f"`{one.sha256[:8]}`" for one in record.sources if one.sha256) or "-"
    megabytes = 4 * arch_cost(record.arch).parameters / 1e6
    return (
        f"| `{record.name}` | {megabytes:.1f} | {top1} | {top5} | {record.preprocess.resolution} "
        f"| {record.preprocess.resize}{'*' if 'assumed' in record.note else ''} "
        f"| {record.license.value if record.license else '-'} | {digest} | {source} |"
    )


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
