"""Jobs made of several rooms: what a command does beyond one call."""
