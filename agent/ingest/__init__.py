"""Sources other than a LiveKit room."""
