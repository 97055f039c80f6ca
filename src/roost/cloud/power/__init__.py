"""Power of machines through their board controllers.

`redfish` speaks to one, bounded in time and bytes; `boards` does so for many at once; `control` keeps what
they say in the store and raises alarms; `procedures` are the steps of power-on, power-off and reset.
"""
