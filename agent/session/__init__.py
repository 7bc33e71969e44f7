"""One live session: audio in, events out, against two small protocols."""
