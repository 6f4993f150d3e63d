"""The policy between doors and backends."""
