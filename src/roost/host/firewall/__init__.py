"""The platform firewall of one host, on nftables.

rules: intent to commands. planning: what would change. driver: runs nft. aspect: ties them to trial
and rollback.
"""
