"""What is kept: the journal of each session, the database, and the way from one to the other."""
