"""The least that each party needs: in Vault, on the database servers, and of sudo on the hosts.

Pure: `vault init` writes and prints it, preflight asks for exactly it, the how-to shows it.
"""
