"""Texts to vectors: in this process, or by a server that speaks the OpenAI form."""
