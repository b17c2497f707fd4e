"""What the LangGraph protocol keeps: assistants, threads, runs, crons, events, items of the store."""
