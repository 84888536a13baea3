"""What the loop is made of: its state, its rules, what stands before the first step."""
