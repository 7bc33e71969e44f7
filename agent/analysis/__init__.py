"""What a session comes to once it is over: statistics, and statements that carry checked evidence."""
