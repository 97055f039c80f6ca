"""One machine: observe it, plan changes, apply them.

`observe` reads the inventory, `sampling` measures use, `monitors` turns samples into levels. Each aspect
that is applied to the machine has a module or package of its own. Nothing here knows of clouds.
"""
