"""Hosts made one cloud: life, configuration, faults, admission.

Controllers meet in the store: `hosts` drives states and alarms, `configuration` compiles each host's
intent, `overview` counts. Decisions are pure functions beside them.
"""
