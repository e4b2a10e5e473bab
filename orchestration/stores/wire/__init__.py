"""The Store port as bytes: what flow processes and a server say to each other. See decisions/0016."""
