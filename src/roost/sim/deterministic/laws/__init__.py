"""The laws that a simulated tree is held to, by rules of their own over plain rows.

Nothing here decides with the code that it watches: what a store holds is read as rows (`books`), and what
must hold of them is said again in plain words. `watching.every` makes the laws of one run.
"""
