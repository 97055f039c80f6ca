"""Clouds made one fleet: subclouds, what is shared with them, how they are.

`subclouds` observes each subcloud and raises its alarm, `sharing` copies selected intent into each
subcloud's namespace, `departure` clears up after a subcloud that was deleted.
"""
