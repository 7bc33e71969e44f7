"""Roomscribe: a hidden LiveKit agent that captions a room by speaker."""
