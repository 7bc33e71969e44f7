"""What is done with a session once it is over: a durable workflow, and the sweeper that starts it."""
