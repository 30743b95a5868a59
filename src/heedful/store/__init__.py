"""The store: prompts, responses and every judgement of them, in SQLite or PostgreSQL; intake, pools, export, backup."""
