"""How far schedulers go: a simulated installation in virtual time, and what things cost, measured on a real server."""
