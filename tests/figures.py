"""What /metrics tells, for tests to look figures up in."""

from __future__ import annotations

import config.metrics  # noqa: F401 - says how the library keeps its figures, before it is imported

from prometheus_client.parser import text_string_to_metric_families  # isort: skip

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def figures_in(text: str) -> Figures:
    """Each figure by its name and its labels, these sorted."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
