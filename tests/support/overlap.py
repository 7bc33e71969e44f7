"""Where people in a recorded meeting speak over each other."""

from collections.abc import Sequence

from agent.ingest.meeting import Segment

__all__ = ["overlapping"]


def overlapping(segments: Sequence[Segment]) -> list[Segment]:
    """What somebody began to say while somebody else spoke."""
    return [
        segment
        for segment in segments
        if any(
            other.speaker != segment.speaker and other.start_s < segment.start_s < other.end_s
            for other in segments
        )
    ]
