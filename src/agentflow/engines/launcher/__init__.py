"""A model server as a child of agentflow: its command line, its life."""
