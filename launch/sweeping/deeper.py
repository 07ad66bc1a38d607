"""A sweep's second stage: the attacks that scored highest are trained with more seeds, as an audit does."""

import json
from collections import defaultdict
from dataclasses import replace

from medveil.launch.jobs.job import Record
from medveil.launch.jobs.trials import WORST
from medveil.launch.results import Outcome
from medveil.launch.running.files import write_private
from medveil.launch.sweeping.grid import Cell, Sweep
from medveil.launch.sweeping.plan import SweepPlan, plan
from medveil.metrics import HEADLINE


def deepened(sweep: Sweep, planned: SweepPlan) -> SweepPlan:
    """``planned`` with the trainings whose turn has come, from what the jobs reached; itself where there are no new.

    They are those of :attr:`Cell.deepens` of which every attack has ended. They are kept in the sweep's folder, so that
    they stay the same however the sweep goes on.
    """
    known, found = set(planned.folder.deepened()), worst(planned)
    if found <= known:
        return planned
    write_private(planned.folder.deeper, json.dumps(sorted(known | found)).encode())
    return plan(sweep, planned.folder)


def worst(planned: SweepPlan) -> set[str]:
    """The keys of the trainings that scored highest of each exploiter on each release whose attacks have all ended."""
    jobs = {job.key: job for job in planned.jobs}
    groups: dict[Cell, dict[str, Record | None]] = defaultdict(dict)
    for cell, _, _, protected in planned.cells:
        if cell.deepens and not cell.more and protected in jobs:
            groups[replace(cell, attack="")][protected] = jobs[protected].read()
    found: set[str] = set()
    for records in groups.values():
        ended = {key: record for key, record in records.items() if record and record.state in ("done", "skipped")}
        if len(ended) < len(records):
            continue
        reached = {key: record.results.outcome for key, record in ended.items()}
        scores = {key: _headline(outcome) for key, outcome in reached.items() if outcome is not None}
        found |= set(sorted(scores, key=lambda key: -scores[key])[:WORST])
    return found


def _headline(outcome: Outcome) -> float:
    """The score that attacks are ranked by, in [0, 1]."""
    return next(outcome.last[metric] for metric in HEADLINE.values() if metric in outcome.last)
