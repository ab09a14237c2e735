"""What does one piece of work: archives, samples, pulls."""
