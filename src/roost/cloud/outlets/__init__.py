"""What happens to alarms, told to receivers outside: webhook, syslog, SNMP, Alertmanager.

messages (what to send from a change) < merging (how much of one cause) < pausing (when to try again) are
pure; worker sends, one task for each outlet; the sinks speak the protocols; outlets starts and ends workers.
"""
