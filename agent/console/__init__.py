"""Pages and an HTTP API for people who read sessions."""
