"""Money: prices, accounts, keys and the ledger. Imports neither `gateway` nor `engine`.

Amounts are integer picodollars (1e-12 USD), times are integer milliseconds since 1970 in UTC (`pricing.clock`).
"""
