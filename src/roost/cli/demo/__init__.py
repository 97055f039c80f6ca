"""`roost demo`: a central cloud and three subclouds on this machine.

`story` starts the processes on the laboratory's ground and drives them through the API, as an operator
would; `tour` is what is printed at the end; `commands` are the verbs.
"""
