"""Encoders, decoders and their compositions; they know nothing of files."""
