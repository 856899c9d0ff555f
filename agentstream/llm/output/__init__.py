"""Typed answers over any wire: how a server is asked for one, and how a wrong one is answered."""
