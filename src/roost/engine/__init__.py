"""The heartbeat: controllers with work queues, operations and steps, clock; admission and credentials."""
