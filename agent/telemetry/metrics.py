"""What a worker counts for Prometheus, beside what livekit-agents does; see `worker.metrics_port`.

Each worker tells of what it did. Of all rooms only that one tells which looks after them, so that the sum
over all workers is right. Coverage is a ratio, which the others give as NaN: take the minimum over all.
"""

from prometheus_client import Counter, Gauge

__all__ = ["AGENTS_DISPATCHED", "AGENT_DEATHS", "COVERAGE", "ROOMS_PARKED", "ROOMS_WITHOUT_AGENT"]

ROOMS_PARKED = Gauge(
    "roomscribe_rooms_parked",
    "Open rooms that get no agent for now, since those before died soon after they began.",
)
ROOMS_WITHOUT_AGENT = Gauge(
    "roomscribe_rooms_without_agent",
    "Open rooms with people that want an agent and have none, parked ones included.",
)
COVERAGE = Gauge(
    "roomscribe_coverage_ratio",
    "Of the speech that live sessions have heard, the share that is in final captions; 1 for none.",
)
AGENTS_DISPATCHED = Counter(
    "roomscribe_agents_dispatched",
    "Agents that were asked into a room that had none, by the reason.",
    ("reason",),
)
AGENT_DEATHS = Counter(
    "roomscribe_agent_deaths",
    "Agents that died or were not heard of any more while their room needed them.",
)
