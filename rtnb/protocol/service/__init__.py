"""Checks, refusals and replies of a service: needed by the simulator and to check an event before it is sent."""
