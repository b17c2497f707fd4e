"""From a message to a role: the intent decision and the policy around it."""
