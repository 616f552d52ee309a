"""Being a service: a real local server that listens, answers and speaks, with faults on demand."""
