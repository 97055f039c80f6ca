"""A laboratory on one machine: sites, routers and hosts as namespaces, and the processes in them.

Pure parts: `topology` (who is where, every address), `network` (the commands that build it),
`restarts` (when a process is started again). Parts that touch the world: `enter` (the launcher),
`namespaces`, `spawn`, `supervisor`, `control` (the socket to a running laboratory), `lab` (the whole).

Invariants:
- Nothing is made in the machine's own network namespace. Every namespace is anonymous and lives
  by the file descriptors and processes of the laboratory alone.
- The kernel ends every process of the laboratory when the laboratory ends, however it ends.
- One laboratory per directory, kept by a lock the kernel drops with its holder.
"""
