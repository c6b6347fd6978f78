"""What a run was made with and of, for the pages: its scans, and its starts with their versions, code and machine."""

import html
from collections.abc import Mapping
from typing import Any

from ivdjax import config
from ivdjax.evaluation import page
from ivdjax.evaluation.match import Matched
from ivdjax.evaluation.record import Record

_DIGITS = 16  # of a hash, for a reader


def cards(run: Record) -> list[str]:
    """Frames about the training: its starts, and the versions and the machine of the last of them."""
    if not run.starts:
        return [page.card("versions and machine", {"of the training": "not recorded"})]
    first, last = run.starts[0], run.starts[-1]
    starts = {"seeds": last["seeds"], "training began": _at(first)}
    if len(run.starts) > 1:
        starts |= {"times it went on": len(run.starts) - 1, "last": f"after step {last['step']}, {_at(last)}"}
    code = {"code of ivdjax": last["code_sha256"][:_DIGITS]}
    return [
        page.card("training", starts),
        page.card("versions of the training", {**last["versions"], **code}),
        page.card("machine of the training", last["machine"]),
    ]


def resumed_elsewhere(run: Record) -> str:
    """A notice, where a training went on with other versions, other code or on another machine; else nothing."""
    told = []
    for before, after in zip(run.starts, run.starts[1:], strict=False):
        if changed := config.differences(_made_with(before), _made_with(after)):
            told.append(f"<li>after step {int(after['step'])}: {html.escape('; '.join(changed))}</li>")
    if not told:
        return ""
    return (
        "<b>Trained in parts that differ.</b> The training went on with other versions, other code or on another "
        f"machine, so no one machine can repeat it bit for bit:<ul>{''.join(told)}</ul>"
    )


def other_data(matched: Matched) -> str:
    """A notice, where runs that are compared had different scans or masks; else nothing."""
    if len({run.data_sha256 for run in matched.runs}) < 2:
        return ""
    told = "".join(
        f"<li>{html.escape(name)}: {html.escape((run.data_sha256 or 'not recorded')[:_DIGITS])}</li>"
        for name, run in zip(matched.names, matched.runs, strict=True)
    )
    return (
        "<b>Different data.</b> The scans and masks that the runs learnt from or held out are not all the same; their "
        f"hashes:<ul>{told}</ul>"
    )


def _made_with(start: Mapping[str, Any]) -> dict[str, Any]:
    return {"code": start["code_sha256"][:_DIGITS], "versions": start["versions"], "machine": start["machine"]}


def _at(start: Mapping[str, Any]) -> str:
    return str(start["time"]).replace("T", " ").replace("+00:00", " UTC")
