"""The words: every kind as typed structs, its invariants, its defaults.

Imports nothing else of Roost. `registry` lists the kinds; `meta` has what they share.
"""
