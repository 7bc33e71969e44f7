"""The journal: what a session has to keep, on this machine's disk before anybody sees it."""
