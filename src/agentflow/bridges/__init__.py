"""A running agentflow's memory inside other libraries' pipelines."""
