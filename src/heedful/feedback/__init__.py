"""Where judgements come from when no person is asked; each source yields the same records as a person does."""
