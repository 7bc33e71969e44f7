"""LiveKit: the only package that uses rtc.Room, tracks and streams."""
