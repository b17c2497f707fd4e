"""Where adapter files come from and rest: sources far away, a cache on disk, copies in memory."""
