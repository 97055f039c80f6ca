"""Operations over many subclouds: a window that slides over rows in the store, within a budget of failures.

- `deciding`: what comes next, purely, from counts;
- `actions`: what can be done at a subcloud, and how its end is seen;
- `planning`: which subclouds, in which order, become steps;
- `looking`: one look at an operation, in one transaction: ends found, steps started, status written;
- `controller`: when to look.

A further action is a class in `actions` and a word in the kind. Nothing else knows what is done.
"""
