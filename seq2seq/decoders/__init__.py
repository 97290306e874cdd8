"""Recurrent decoders: every one turns a ``Memory`` into a sequence."""
