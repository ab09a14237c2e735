"""What does one piece of work: archives, samples, pulls."""

from tasks.logs import clean_logs

# Here, since tasks run in processes and on machines that import nothing else of this program before.
clean_logs()
