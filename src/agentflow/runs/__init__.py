"""A turn outside of any request: it is accepted, claimed, executed and finished even if nobody listens."""
