"""Model servers with LoRA adapters, one driver each."""
