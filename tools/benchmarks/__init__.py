"""What tools/benchmark.py measures: a module a subject, and the processes that some contenders run in."""
