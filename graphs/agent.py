"""For LangGraph Studio: `langgraph dev` opens this graph; agentflow.yaml is read from the current folder."""

from agentflow.cli.house import place
from agentflow.wiring import Studio

graph = Studio(place).graph
