"""Engines: one protocol, one module per back end, each importing its runtime when opened."""
