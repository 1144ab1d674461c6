"""Locks between processes of one machine: those of ``training.locks`` that the server uses."""

from training.locks import is_locked, try_lock

__all__ = ["is_locked", "try_lock"]
