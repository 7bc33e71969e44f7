"""The recorded meetings that tests play; `agent.ingest.meeting.load_meeting` reads one, with its truth."""

from pathlib import Path

__all__ = ["INCIDENT_REVIEW"]

INCIDENT_REVIEW = Path(__file__).parents[1] / "data" / "meetings" / "incident_review"
"""106 s, five people, a tenth of their speech over each other."""
