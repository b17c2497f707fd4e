"""HTTP to model servers: requests, token streams, and what their answers mean."""
