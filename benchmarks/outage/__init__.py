"""What an outage of a speech engine costs: words, and time.

    python -m benchmarks.outage [--only KIND,…] [--logs FILE] [--json FILE] [--full]

Several people talk, in real time. What they say goes through the driver and the real Deepgram engine, over a
socket, to a stand-in in a process of its own, which breaks for a while: it is killed and started again, takes
audio and says nothing, cannot be reached though the connection stays, or is asked too much. Each kind and
length is a session of its own, and all of them run side by side.
"""

from benchmarks.outage.command import main

__all__ = ["main"]
