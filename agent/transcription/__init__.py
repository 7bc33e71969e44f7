"""Drives one stream of speech recognition per session."""
