"""Samples in, samples out. Pure: no I/O, no clock, no asyncio."""
