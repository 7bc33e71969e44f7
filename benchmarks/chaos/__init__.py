"""Nothing is lost and no room is left alone, whoever is killed at whatever moment.

    python -m benchmarks.chaos [--only KIND,…] [--tries N] [--rooms N] [--database URL] [--json FILE]

A livekit-server and workers run as they do for operators. In each room somebody speaks and a viewer notes
every event. Jobs, workers and servers are killed, stopped, paused and drained; Roomscribe itself brings the
agents back. At the end every final that a viewer got must be in the database, once.
"""

from benchmarks.chaos.command import main
from benchmarks.chaos.ground import COUNTING
from benchmarks.chaos.keeping import Outcome, look_for, until_drained
from benchmarks.chaos.room import Room, UnrecoveredError, torment

__all__ = ["COUNTING", "Outcome", "Room", "UnrecoveredError", "look_for", "main", "torment", "until_drained"]
