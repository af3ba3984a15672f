"""Sockets with callbacks in place of protocols."""
