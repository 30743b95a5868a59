"""A language model as a labeler (RLAIF, arXiv 2309.00267)."""
