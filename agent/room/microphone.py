"""Which of somebody's tracks is heard."""

from livekit import rtc

__all__ = ["heard_track"]


def heard_track(
    participant: rtc.RemoteParticipant, source: rtc.TrackSource.ValueType = rtc.TrackSource.SOURCE_MICROPHONE
) -> rtc.RemoteTrackPublication | None:
    """The newest audio track of this source that is not muted, else the newest, else None.

    Who publishes a second microphone, or whose first one is a ghost of an earlier connection, is heard once.
    """
    publications = [
        publication
        for publication in participant.track_publications.values()
        if publication.kind == rtc.TrackKind.KIND_AUDIO and publication.source == source
    ]
    unmuted = [publication for publication in publications if not publication.muted]
    wanted = unmuted or publications
    return wanted[-1] if wanted else None
