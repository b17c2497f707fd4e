"""The ledger: a turn is here before its first answered byte, and ends here in one statement."""

from agentflow.records.ledger.postgres import PostgresLedger

__all__ = ["PostgresLedger"]
