"""Files to chunks: read, cut along their structure, cited. It runs in a process of its own (apart.py)."""
