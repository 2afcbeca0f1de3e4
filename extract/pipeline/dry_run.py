"""What a plan says to a user before anything is done."""

from __future__ import annotations

from itertools import groupby

from ..alignment.align_shards import AlignPlan
from ..weights.registry import known
from .plan import Plan, Request, ShardJob


def describe(plan: Plan) -> str:
    """What is done, what is to do and why, and what goes; a line for each feature and reason."""
    shards: dict[tuple[str, str], list[ShardJob]] = {}
    for job in plan.jobs:
        for spec, reason in zip(job.request.features, job.reasons, strict=True):
            shards.setdefault((spec.name, reason), []).append(job)
    lines = [
        f"{name}: {len(jobs)} shards to do ({jobs[0].path(name).name}"
        f"{' and so on' if len(jobs) > 1 else ''}), "
        f"{sum(len(job.computed(name)) for job in jobs):,} clips: {reason}"
        for (name, reason), jobs in shards.items()
    ]
    for name, gone in groupby(plan.stale, key=lambda path: path.parent.name):
        first, *more = gone
        lines.append(
            f"{name}: {1 + len(more)} shards to remove ({first.name}"
            f"{' and so on' if more else ''}): no clip belongs there any more"
        )
    to_do = sum(map(len, shards.values()))
    lines.append(f"{to_do} shards to do, {len(plan.done)} done")
    return "\n".join(lines)


def describe_missing(request: Request) -> list[str]:
    """A line for each of the weights that are not here, and what the plan makes of that."""
    lines = []
    for spec in request.features:
        for name in spec.extractor().missing_weights:
            published = known(name).published[0]
            how = "the run fetches them" if published.url else f"get them by `{published.source}`"
            lines.append(
                f"{spec.name}: the weights {name} are not here; {how} (about "
                f"{published.megabytes:g} MB). Shards that are there count as made with them"
            )
    return lines


def describe_alignment(plan: AlignPlan) -> str:
    """What an alignment would write, leave and remove."""
    clips = sum(len(job.clips) for job in plan.jobs)
    lines = [f"{plan.target}: {len(plan.jobs)} shards to write ({clips:,} clips), {plan.done} done"]
    if plan.stale:
        lines.append(f"{len(plan.stale)} shards to remove: no clip belongs there any more")
    if plan.absent:
        lines.append(f"{plan.absent:,} clips have no rows of every feature and would be left out")
    return "\n".join(lines)
