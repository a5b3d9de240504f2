"""Stages: each takes one artifact and gives one artifact."""
