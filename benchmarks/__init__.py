"""segmed beside what one would use instead: a module a subject, and the processes that some contenders run in."""
