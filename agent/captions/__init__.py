"""Speech events in, captions out. Pure: no I/O, no clock, no asyncio."""
