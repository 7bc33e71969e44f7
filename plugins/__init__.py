"""Engines behind one small interface each."""
